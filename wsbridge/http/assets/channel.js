'use strict';
const STATUS_MS = 2000, TICK_MS = 250, SILENT_MS = 5000;


/* ---- The page ---- */

const STATES = { connecting: 'Connecting', open: 'Live', over: 'Connected', away: 'Broker away', blocked: 'Broker blocked', waiting: 'No connection', closed: 'Closed' };

/*
 * The directory of the channel, and its status: the page's own, or one above it, where the page is what answers at every path.
 * The status is null where the server has none (--no-status) or does not show it to this page; the channel is at any path then.
 */
async function findChannel() {
  const own = new URL('.', location.origin + location.pathname);
  for (let directory = own; ; directory = new URL('..', directory)) {
    const answer = await fetch(new URL('status', directory), { cache: 'no-store' });
    if (answer.headers.get('content-type')?.includes('json')) return [directory, await answer.json()];
    if (answer.status >= 500) throw new Error(`${directory} has no channel: status ${answer.status}`);
    if (directory.pathname === '/') return [own, null];
  }
}

class Page {
  constructor() {
    this.wasOpen = false;
    this.dueAt = 0;                 // when the next attempt is
    this.openAt = 0;                // since when it is open
    this.total = 0;
    this.lost = 0;                  // messages
    this.lostUncounted = false;
    this.samples = [];
    this.status = { ...document.documentElement.dataset };   // exchange and input; the rest is in /status
    this.channel = null;
    this.view = new View({ blank: () => this.blank(), drawn: () => this.figures() });
    this.listen();
    this.introduce();
    this.start();
    setInterval(() => this.poll(), STATUS_MS);
    setInterval(() => this.tick(), TICK_MS);
  }

  introduce() {
    const { exchange, input } = this.status;
    $('exchange').textContent = $('exchange').title = exchange;
    document.title = `${exchange} on ${location.host} · live channel`;
    $('composer').hidden = input === 'none';
  }

  async start() {
    try {
      const [directory, status] = await findChannel();
      this.directory = directory;
      this.hasStatus = status !== null;
      $('viewers').parentElement.hidden = !this.hasStatus;
      if (status) this.learn(status);
      this.connect(null);
    } catch (error) {
      console.warn(error);
      $('state').dataset.state = 'waiting';
      $('state').textContent = STATES.waiting;
      setTimeout(() => this.start(), STATUS_MS);
    }
  }

  connect(since) {
    this.channel = new wsbridge.Channel(this.directory.href, {
      since,
      times: true,
      onmessage: (data, position, at) => this.received(data, position, at),
      onlost: messages => this.missed(messages),
      onstate: (state, detail) => this.stand(state, detail),
      onbroker: isHere => {
        this.isAway = !isHere;
        this.sayState();
        this.view.note(isHere ? 'The broker is back' : 'The broker is away: no messages arrive until it is back', isHere ? '' : 'wait');
      },
    });
  }

  /* A message has the time at which it was published, if that is known; one from a server that tells no times, that of its delivery. */
  received(data, position, at) {
    this.total++;
    const size = typeof data === 'string' ? utf8Length(data) : data.byteLength;
    const entry = new Entry('in', data, size, this.total, position === null ? Date.now() : at);
    if (position !== null) entry.title = `position ${position}`;
    this.view.push(entry);
  }

  missed(messages) {
    if (messages === null) this.lostUncounted = true; else this.lost += messages;
    this.view.note(messages === null ? 'Some messages were lost' : `${plural(messages, 'message')} ${messages === 1 ? 'was' : 'were'} lost`, 'lost');
  }

  stand(state, { code, reason, delay = 0 }) {
    $('send').setAttribute('aria-disabled', state !== 'open');
    const hadFocus = document.activeElement === $('retry');
    $('retry').hidden = $('countdown').hidden = state !== 'waiting';
    if (hadFocus && state !== 'waiting') $('log').focus({ preventScroll: true });
    this.dueAt = performance.now() + delay * 1000;
    if (state === 'open') {
      this.view.note('Connected');
      this.openAt = performance.now();
      this.ask();
    } else if (this.wasOpen && state !== 'connecting') {
      this.view.note(`Disconnected: ${reason || (code === 1006 ? 'the connection was lost' : `code ${code}`)}`, 'wait');
      $('viewers').textContent = '–';
    }
    this.wasOpen = state === 'open';
    this.sayState();
    this.sayProgram();
    if (state === 'closed') this.refused();
    this.tick();
  }

  sayState() {
    const { program, broker, input } = this.status;
    // No publisher is left.
    const isOver = program === 'ended' && broker === null && input !== 'exchange';
    const state = this.channel?.state !== 'open' ? this.channel?.state : this.isAway ? 'away' : broker === 'blocked' ? 'blocked' : isOver ? 'over' : 'open';
    if (!state) return;
    $('state').dataset.state = state;
    if ($('state').textContent !== STATES[state]) $('state').textContent = STATES[state];
  }

  /* The one end that is not passing: what was sent is not taken. So nothing is sent any more, and the rest goes on. */
  refused() {
    document.querySelector('form').hidden = true;
    $('composer').hidden = false;
    $('advice').textContent = 'This channel accepts no messages: yours was not sent.';
    this.connect(this.channel.position);
  }

  send() {
    const text = $('message').value;
    if (!text) return;
    const isSent = this.channel.send(text);
    $('advice').textContent = isSent ? '' : 'Not connected: the message was not sent.';
    if (isSent) $('message').value = '';
  }

  poll() {
    if (!document.hidden && this.channel?.state === 'open') this.ask();
  }

  async ask() {
    if (!this.hasStatus) return;
    try {
      this.learn(await (await fetch(new URL('status', this.directory), { cache: 'no-store' })).json());
    } catch {
      $('viewers').textContent = '–';
    }
  }

  /* Names the address of the broker that is in use, once for each change; while the broker is away there is none. */
  sayAddress(address) {
    if (!address || address === this.address) return;
    this.address = address;
    $('state').title = `Broker: ${address}`;
    this.view.note(`Broker: ${address}`);
  }

  learn(status) {
    this.status = status;
    this.sayAddress(status.broker_address);
    if (this.channel?.state === 'open') $('viewers').textContent = count(status.viewers);
    const restarts = status.program_restarts ?? 0;
    $('restarts').parentElement.hidden = !restarts;
    show('restarts', restarts, count(restarts));
    $('stderr').hidden = !status.program_stderr;
    $('stderr').lastElementChild.textContent = $('stderr').title = visible(status.program_stderr ?? '');
    this.sayState();
    this.sayProgram();
  }

  /* Of a program that runs there is nothing to say. */
  sayProgram() {
    const { program, program_exit: exit } = this.status, hasFailed = Boolean(exit) && exit !== 'exit 0', isEnded = program === 'ended';
    $('program').hidden = this.channel?.state !== 'open' || !isEnded && program !== 'waiting';
    const words = isEnded ? `Program ended${hasFailed ? `: ${exit}` : ''}` : `Program${hasFailed ? `: ${exit}` : ' ended'}, starting again`;
    if ($('program').textContent !== words) $('program').textContent = words;
    $('program').dataset.tone = !hasFailed ? '' : isEnded ? 'bad' : 'wait';
  }

  /* Words for a log without messages; while it connects they stay as they are. */
  blank() {
    const state = this.channel?.state, { program, messages, exchange } = this.status;
    if (state === 'open') {
      const isSilent = program === 'running' && !messages && performance.now() - this.openAt > SILENT_MS;
      if (isSilent) return ['The program has printed nothing yet', 'A program that buffers its output needs --pty, or a flush after each line.'];
      return ['No messages yet', program === null ? `New messages on ${exchange} appear here.` : 'New output of the program appears here.'];
    }
    if (state === 'waiting') return [STATES.waiting, 'The page reconnects automatically.'];
    return $('blank').hidden ? null : [$('blank').firstElementChild.textContent, $('blank-hint').textContent];
  }

  tick() {
    const now = performance.now();
    $('countdown').textContent = `Trying again in ${Math.max(0, Math.ceil((this.dueAt - now) / 1000))} s`;
    if (this.channel) this.place(this.channel.position);  // which the server may tell after the page was drawn, and with no message
    this.view.sayBlank();
    this.samples.push([now, this.total]);
    if (this.samples.length > 5) this.samples.shift();
    const [[then, before]] = this.samples, rate = now > then ? Math.round((this.total - before) * 1000 / (now - then)) : 0;
    show('rate', rate, `${count(rate)}/s`);
  }

  figures() {
    const lost = [this.lost ? count(this.lost) : '', this.lostUncounted ? (this.lost ? 'and more' : 'some') : ''].filter(Boolean).join(' ');
    $('lost').textContent = lost && `${lost} lost`;
    if (this.channel) this.place(this.channel.position);
  }

  /* What counts in full, and of what only names it the beginning: 4f1c…-17, 1207.9f3…-1. */
  place(position) {
    if (position === null || $('position').title === position) return;
    const [, offset, name, number] = /^(\d+\.)?(.*)(-\d+)$/.exec(position);
    $('position').title = position;
    $('position').replaceChildren(offset ?? '', element('span', '', name), number);
  }

  listen() {
    const on = (id, act) => $(id).addEventListener('click', act);
    on('retry', () => this.channel.retry());
    on('clear', () => { this.lost = 0; this.lostUncounted = false; });
    document.querySelector('form').addEventListener('submit', event => { event.preventDefault(); this.send(); });
    document.addEventListener('visibilitychange', () => this.poll());
  }
}

const page = new Page();
