'use strict';
const HISTORY = 100, HISTORY_KEY = 'wsbridge.console.history';


/* ---- Counters ---- */

class Tally {
  /* Exact totals of one direction, and the rate over about the last second. */
  constructor(name) { this.name = name; this.reset(); }

  reset() { this.messages = this.bytes = this.rate = 0; this.samples = []; }

  add(size) { this.messages++; this.bytes += size; }

  sample(now) {
    this.samples.push([now, this.messages]);
    if (this.samples.length > 5) this.samples.shift();
    const [then, before] = this.samples[0];
    this.rate = now > then ? Math.round((this.messages - before) * 1000 / (now - then)) : 0;
  }

  draw() {
    show(`count-${this.name}`, this.messages, count(this.messages));
    show(`bytes-${this.name}`, this.bytes, bytes(this.bytes));
    show(`rate-${this.name}`, this.rate, count(this.rate));
  }
}


/* Bytes from "de ad be ef", "0xDE, 0xAD", "deadbeef". Throws an Error whose message says what is wrong. */
function fromHex(text) {
  const digits = text.replace(/0x/gi, ' ').replace(/[\s,:;]+/g, ' ').trim();
  const wrong = digits.match(/[^0-9a-f ]/i);
  if (wrong) throw new Error(`“${wrong[0]}” is not a hex digit.`);
  const odd = digits.split(' ').find(word => word.length % 2);
  if (odd) throw new Error(`A byte is two hex digits: “${odd.slice(0, 12)}” has ${odd.length === 1 ? 'one digit' : 'an odd number of digits'}.`);
  return Uint8Array.from(digits.match(/[0-9a-f]{2}/gi) ?? [], pair => parseInt(pair, 16));
}


/* ---- The connection ---- */

const CLOSE_CODES = {
  1000: 'the program ended', 1001: 'the server is shutting down', 1002: 'protocol error', 1003: 'this kind of message is not accepted',
  1005: 'closed without a code', 1007: 'a text message was not UTF-8', 1008: 'policy violation', 1009: 'message too long',
  1010: 'the server lacks an extension', 1011: 'the program failed', 1012: 'the server restarts', 1013: 'the server is busy',
  1014: 'bad gateway', 1015: 'TLS failed',
};

/* The close of a session in words: what the code means, and the reason that came with it. */
function closeWords({ code, reason }, wasOpen, byUser) {
  let words = CLOSE_CODES[code] ?? (code >= 4000 ? 'a private code' : code >= 3000 ? 'a registered code' : 'an undefined code');
  if (code === 1006) words = wasOpen ? 'no close frame: the connection was lost' : 'no close frame: the server refused the upgrade (its log shows the reason), or no server listens there';
  if (byUser && (code === 1000 || code === 1005 || code === 1006)) words = 'you disconnected';
  return reason && reason.toLowerCase() !== words ? `${words}: ${reason}` : words;
}

class Connection {
  /* One WebSocket at a time, and the words for how it stands. */
  constructor(page) { this.page = page; this.socket = null; }

  get state() { return ['connecting', 'open', 'closing', 'closed'][this.socket?.readyState ?? 3]; }

  open(address, protocols) {
    const socket = new WebSocket(address, protocols);
    let openedAt = 0;
    this.byUser = false;
    this.socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => { openedAt = performance.now(); this.page.opened(socket); };
    socket.onmessage = event => this.page.received(event.data);
    socket.onclose = event => {
      const lasted = openedAt && (performance.now() - openedAt) / 1000;
      this.page.closed(event.code, closeWords(event, openedAt > 0, this.byUser), lasted);
    };
  }

  close() {
    this.byUser = true;
    this.socket.close(1000);
  }
}


/* ---- The composer ---- */

class History {
  /* What was sent, newest last. localStorage may be missing or full: then it lasts as long as the page. */
  constructor() {
    this.sent = [];
    try {
      const stored = JSON.parse(localStorage.getItem(HISTORY_KEY));
      if (Array.isArray(stored)) this.sent = stored.filter(line => typeof line?.text === 'string').slice(-HISTORY);
    } catch { /* nothing stored */ }
    this.rewind();
  }

  rewind() { this.place = this.sent.length; this.draft = null; }

  add(line) {
    const last = this.sent.at(-1);
    if (line.text && line.text.length < 10000 && (last?.text !== line.text || last.mode !== line.mode)) this.sent.push(line);
    this.sent = this.sent.slice(-HISTORY);
    this.rewind();
    try { localStorage.setItem(HISTORY_KEY, JSON.stringify(this.sent)); } catch { /* not stored */ }
  }

  /* Steps back (-1) or forward (1) from what is written now; null where there is nothing further. */
  step(by, written) {
    const to = this.place + by;
    if (to < 0 || to > this.sent.length) return null;
    if (this.place === this.sent.length) this.draft = written;
    this.place = to;
    return to === this.sent.length ? this.draft : this.sent[to];
  }
}

class Composer {
  constructor(send) {
    this.send = send;
    this.box = $('message');
    this.history = new History();
    this.file = null;
    $('composer').addEventListener('submit', event => { event.preventDefault(); this.submit(); });
    this.box.addEventListener('input', () => { this.fit(); this.advise(''); });
    this.box.addEventListener('keydown', event => this.key(event));
    for (const mode of ['text', 'hex']) $(`mode-${mode}`).addEventListener('change', () => { this.modeChanged(); this.box.focus(); });
    $('file').addEventListener('change', () => this.choose($('file').files[0] ?? null));
    $('unchoose').addEventListener('click', () => { this.choose(null); this.box.focus(); });
    this.modeChanged();
  }

  get mode() { return $('mode-hex').checked ? 'hex' : 'text'; }

  set mode(mode) { $(`mode-${mode === 'hex' ? 'hex' : 'text'}`).checked = true; this.modeChanged(); }

  modeChanged() {
    this.box.placeholder = this.mode === 'hex' ? 'Bytes as hex: 68 65 6c 6c 6f' : 'Message';
    this.advise('');
  }

  advise(words) {
    $('advice').hidden = !words;
    $('advice').textContent = words;
    this.box.setAttribute('aria-invalid', Boolean(words) && this.mode === 'hex');
  }

  choose(file) {
    this.file = file;
    if (!file) $('file').value = '';
    $('chosen').hidden = !file;
    $('chosen-name').textContent = file ? `Send sends the file ${file.name}, ${bytes(file.size)}, as one binary message.` : '';
  }

  async submit() {
    try {
      if (this.file) {
        this.send(await this.file.arrayBuffer());
        this.choose(null);
        return;
      }
      const text = this.box.value, { mode } = this;
      this.send(mode === 'hex' ? fromHex(text).buffer : text);
      this.history.add({ mode, text });
      this.write('');
    } catch (error) { this.advise(error.message); }
  }

  write(text) { this.box.value = text; this.fit(); this.advise(''); }

  fit() {
    this.box.style.height = '';
    this.box.style.height = `${this.box.scrollHeight + 2}px`;
  }

  key(event) {
    if (event.isComposing) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      event.stopPropagation();
      this.submit();
    } else if ((event.key === 'ArrowUp' || event.key === 'ArrowDown') && !event.shiftKey && !event.altKey && !event.ctrlKey && !event.metaKey) {
      const { selectionStart, selectionEnd, value } = this.box, back = event.key === 'ArrowUp';
      const inside = back ? value.slice(0, selectionStart).includes('\n') : value.slice(selectionEnd).includes('\n');
      if (inside || selectionStart !== selectionEnd) return;
      const line = this.history.step(back ? -1 : 1, { mode: this.mode, text: value });
      if (!line) return;
      event.preventDefault();
      this.mode = line.mode;
      this.write(line.text);
    }
  }
}


/* ---- The page ---- */

class Page {
  constructor() {
    this.tallies = { in: new Tally('in'), out: new Tally('out') };
    this.view = new View({ blank: () => this.blank(), drawn: () => this.figures() });
    this.connection = new Connection(this);
    this.composer = new Composer(data => this.send(data));
    this.listen();
    const secure = location.protocol === 'https:' ? 'wss' : 'ws';
    const { program, target } = document.documentElement.dataset;
    const path = target ? new URL(target, location.href).pathname : `${location.pathname}${location.search}`;
    $('url').value = location.host ? `${secure}://${location.host}${path}` : 'ws://localhost:8080/';
    document.title = `${program || location.pathname.split('/').filter(Boolean).at(-1) || 'wsbridge'} on ${location.host} · console`;
    this.stand();
  }

  /* The handler of what arrives, a million times if need be: count it, keep it, ask for a frame. */
  received(data) {
    const size = typeof data === 'string' ? utf8Length(data) : data.byteLength, tally = this.tallies.in;
    tally.add(size);
    this.view.push(new Entry('in', data, size, tally.messages));
  }

  /* Throws an Error with advice when there is no open connection. */
  send(data) {
    if (this.connection.state !== 'open') throw new Error('Not connected: connect first.');
    this.connection.socket.send(data);
    const size = typeof data === 'string' ? new TextEncoder().encode(data).length : data.byteLength;
    this.tallies.out.add(size);
    this.view.push(new Entry('out', data, size, this.tallies.out.messages));
    this.view.log.follow();
  }

  figures() {
    this.tallies.in.draw();
    this.tallies.out.draw();
    const waiting = this.connection.state === 'open' ? this.connection.socket.bufferedAmount : 0;
    $('waiting').hidden = !waiting;
    if (waiting) show('waiting', waiting, `${bytes(waiting)} not yet sent`);
  }

  /* Notes of what happened say enough. */
  blank(hasNotes) {
    if (this.connection.state === 'open') return hasNotes ? null : ['Connected, no messages yet', 'The output of the program appears here.'];
    return hasNotes ? null : ['Nothing here yet', 'Connect starts the program; its output appears here.'];
  }

  /* Words, buttons and focus for how the connection stands. */
  stand() {
    const { state } = this.connection, shown = $('state'), focused = document.activeElement;
    shown.dataset.state = state;
    shown.textContent = this.connection.socket ? state[0].toUpperCase() + state.slice(1) : 'Not connected';
    $('connect').hidden = state !== 'closed';
    $('disconnect').hidden = state === 'closed';
    $('disconnect').textContent = state === 'connecting' ? 'Cancel' : 'Disconnect';
    $('disconnect').setAttribute('aria-disabled', state === 'closing');   // not disabled: it would lose the focus
    $('send').setAttribute('aria-disabled', state !== 'open');
    $('url').readOnly = $('subprotocol').readOnly = state !== 'closed';
    if (focused === $('connect') || focused === $('disconnect')) (state === 'closed' ? $('connect') : $('disconnect')).focus();
    if (state !== 'closed') this.ticking ??= setInterval(() => this.tick(), 250);
    this.view.changed();
  }

  tick() {
    const now = performance.now(), { in: incoming, out: outgoing } = this.tallies;
    incoming.sample(now);
    outgoing.sample(now);
    if (this.connection.state === 'closed' && !incoming.rate && !outgoing.rate) {
      clearInterval(this.ticking);
      this.ticking = undefined;
    }
    this.view.changed();
  }

  connect() {
    const typed = $('url').value.trim(), scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const address = /^[a-z]+:\/\//i.test(typed) ? typed.replace(/^http/i, 'ws') : `${scheme}://${typed}`;
    this.say('');
    try {
      this.connection.open(address, $('subprotocol').value.split(/[\s,]+/).filter(Boolean));
    } catch (error) {
      $('url').setAttribute('aria-invalid', true);
      this.say(`This address cannot be used: ${error.message.replace(/^.*WebSocket': /, '')}`, true);
      return;
    }
    $('url').removeAttribute('aria-invalid');
    this.tallies.in.reset();
    this.tallies.out.reset();
    this.view.replot();
    this.stand();
  }

  say(words, bad = false, code = '') {
    $('close-info').textContent = words;
    $('close-info').dataset.code = code;
    $('close-info').classList.toggle('bad', bad);
  }

  opened(socket) {
    this.view.note(`Connected to ${socket.url}${socket.protocol && `, subprotocol ${socket.protocol}`}`);
    const waited = document.activeElement === $('disconnect');
    this.stand();
    if (waited && !matchMedia('(pointer: coarse)').matches) $('message').focus();   // a telephone would open its keyboard
  }

  closed(code, words, lasted) {
    const bad = ![1000, 1001, 1005].includes(code) && words !== 'you disconnected';
    const after = lasted ? `, after ${lasted < 10 ? lasted.toFixed(1) : count(Math.round(lasted))} s` : '';
    this.say(`${code}, ${words}`, bad, code);
    this.view.note(`Closed: ${code}, ${words}${after}`, bad ? 'bad' : '');
    for (const tally of Object.values(this.tallies)) tally.draw();   // who sees it closed sees the final count
    this.stand();
  }

  listen() {
    const on = (id, event, act) => $(id).addEventListener(event, act);
    on('connection', 'submit', event => { event.preventDefault(); if (this.connection.state === 'closed') this.connect(); });
    on('disconnect', 'click', () => { if (this.connection.state !== 'closing') this.connection.close(); this.stand(); });
    on('help-open', 'click', () => $('help').showModal());
    on('help-close', 'click', () => $('help').close());
    on('help', 'click', event => { if (event.target === $('help')) $('help').close(); });
    document.addEventListener('keydown', event => this.key(event));
  }

  key(event) {
    if (event.isComposing || event.altKey || $('help').open) return;
    const isTyping = event.target.matches('input[type="text"], textarea');
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.composer.submit();
    } else if (event.key === '?' && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      $('help').showModal();
    }
  }
}

new Page();
