'use strict';
const KEEP = 2000;                          // messages that are kept to scroll back through
const FOLLOWED = 300;                       // rows there are while the log follows: more than any screen shows
const LONG = 10000, SHOWN = 2000;           // characters: a longer text is kept and shown only so far
const SHOWN_BYTES = 256;                    // of a binary message
const RUSH_ROWS = 100, RUSH_MS = 100;       // where a frame draws so many rows, the next is drawn so much later
const POINTS = 1000, SERIES = 8, SAMPLES = 300;   // the plot: what it keeps, and the messages it reads in a frame
const NAMES = 100, HUGE = 1e300;            // numbers that are looked at in a message; beyond, a difference may be infinite
const APART = 100;                          // times: a series so much smaller than another is a flat line beside it
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400];   // seconds
const STATUS_MS = 2000, TICK_MS = 250, SILENT_MS = 5000;

const $ = id => document.getElementById(id);
const grouped = new Intl.NumberFormat('en'), short = new Intl.NumberFormat('en', { maximumSignificantDigits: 6 });
const count = number => grouped.format(number);
const figure = number => Math.abs(number) >= 1e15 ? number.toPrecision(6) : (Number.isInteger(number) || Math.abs(number) >= 1e5 ? grouped : short).format(number);
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? '' : 's'}`;
const clock = at => new Date(at - new Date(at).getTimezoneOffset() * 60000).toISOString().slice(11, 23);

function element(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

function show(id, number, text) {
  $(id).dataset.count = number;
  if ($(id).textContent !== text) $(id).textContent = text;
}

/* Control characters as the pictures that Unicode has for them: a terminal's escape sequences become visible and harmless. */
const visible = text => text.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, c => String.fromCharCode(c === '\x7f' ? 0x2421 : 0x2400 + c.charCodeAt()));

const hex = bytes => Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join(' ');

/* What is kept of a message: a copy of its beginning where it is long, for a part would keep the whole in memory. */
function kept(data) {
  if (typeof data !== 'string') return { kind: 'binary', data: new Uint8Array(data.slice(0, SHOWN_BYTES)), size: data.byteLength };
  if (data.length <= LONG) return { kind: 'text', data, size: data.length };
  return { kind: 'text', data: new TextDecoder().decode(new TextEncoder().encode(data.slice(0, SHOWN))), size: data.length };
}


/* ---- The log ---- */

class Log {
  /* Follows what arrives; held still while paused, scrolled back, or while text is selected. */
  constructor(changed) {
    this.changed = changed;
    this.box = $('log');
    this.entries = [];          // the last ones; `next` is the number of the one that comes
    this.next = this.drawn = this.top = 0;
    this.messages = this.lost = 0;
    this.lostUncounted = false;
    this.paused = this.held = false;
    this.box.addEventListener('scroll', () => this.scrolled());
    new ResizeObserver(() => { if (!this.held) this.toEnd(); }).observe(this.box);
    document.addEventListener('selectionchange', () => {
      const selection = getSelection();
      if (!selection.isCollapsed && this.box.contains(selection.anchorNode)) this.hold();
    });
  }

  push(entry) {
    if (entry.kind === 'text' || entry.kind === 'binary') this.messages++;
    this.entries.push(entry);
    this.next++;
    if (this.entries.length >= 2 * KEEP) this.entries.splice(0, KEEP);
    this.changed();
  }

  since(number) { return this.entries.slice(Math.max(0, this.entries.length - (this.next - number))); }

  clear() {
    this.entries = [];
    this.drawn = this.heldAt = this.next;
    this.messages = this.lost = this.heldMessages = 0;
    this.lostUncounted = false;
    this.box.replaceChildren();
    this.changed();
  }

  /* Draws what is new; returns how many rows that were. */
  draw() {
    const newer = this.held ? this.messages - this.heldMessages : 0;
    $('latest').hidden = !this.held || !newer;
    show('latest', newer, `↓ ${plural(newer, 'newer message')}`);
    if (this.held || this.drawn === this.next) return 0;
    const fresh = this.since(Math.max(this.drawn, this.next - FOLLOWED));
    this.box.append(...fresh.map(row));
    this.drawn = this.next;
    while (this.box.childElementCount > FOLLOWED) this.box.firstChild.remove();
    this.toEnd();
    return fresh.length;
  }

  toEnd() {
    this.box.scrollTop = this.box.scrollHeight;
    this.top = this.box.scrollTop;
  }

  /* Holds the log still, and draws all that is kept above what is seen. */
  hold() {
    if (this.held) return;
    this.draw();
    this.held = true;
    this.heldMessages = this.messages;
    const older = this.since(this.next - KEEP).slice(0, -this.box.childElementCount || undefined);
    const before = this.box.scrollHeight;
    if (this.box.childElementCount) this.box.prepend(...older.map(row));
    this.box.scrollTop = this.top = this.box.scrollTop + this.box.scrollHeight - before;
    this.changed();
  }

  follow() {
    if (this.paused || !this.held) return;
    this.held = false;
    getSelection().removeAllRanges();
    // What follows on the rows that there are is appended; else the rows begin anew.
    if (this.next - this.drawn > FOLLOWED) this.box.replaceChildren();
    this.draw();
    this.toEnd();
    this.changed();
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.box, isAtEnd = scrollTop + clientHeight >= scrollHeight - 4;
    if (!this.held && scrollTop < this.top - 2 && !isAtEnd) {
      this.top = scrollTop;
      this.hold();
    } else if (this.held && isAtEnd && scrollTop > this.top && getSelection().isCollapsed) this.follow();
    else this.top = scrollTop;
  }
}

function row({ kind, at, data, size, position }) {
  const time = at === null ? '' : clock(at), made = element('div', `row ${kind}`);
  made.append(time ? element('time', '', time.slice(0, 8), element('span', '', time.slice(8))) : element('time', '', 'earlier'));
  const text = kind === 'binary' ? hex(data) : visible(data), rest = size - data.length;
  const shown = element('p', '', text);
  if (kind === 'binary') shown.append(' ', element('i', '', rest > 0 ? `… ${plural(rest, 'more byte')}` : plural(size, 'byte')));
  else if (rest > 0) shown.append(' ', element('i', '', `… ${plural(rest, 'more character')}`));
  else if (!text) shown.append(element('i', '', 'empty'));
  if (position) made.title = `position ${position}`;
  made.append(shown);
  return made;
}


/* ---- The plot ---- */

const isNumber = word => word !== '' && Math.abs(Number(word)) < HUGE;

/* The numbers of a message by their names: of a number, of several in columns, of JSON; null where it is none of these. */
function numbersIn(text) {
  if (text.length > LONG || !/^\s*[-+.\d[{]/.test(text)) return null;
  const found = {};
  if (/^\s*[[{]/.test(text)) {
    try { collect(JSON.parse(text), '', found); } catch { return null; }
  } else {
    const words = text.trim().split(/\s*[,;]\s*|\s+/, NAMES);
    if (!words.every(isNumber)) return null;
    words.forEach((word, i) => { found[words.length === 1 ? 'value' : `column ${i + 1}`] = Number(word); });
  }
  return Object.keys(found).length ? found : null;
}

function collect(value, name, found) {
  if (typeof value === 'number') { if (Math.abs(value) < HUGE) found[name] = value; }
  else if (Array.isArray(value)) value.slice(0, NAMES).forEach((part, i) => collect(part, `${name}[${i}]`, found));
  else if (value) for (const [key, part] of Object.entries(value)) if (typeof part !== 'string') collect(part, name ? `${name}.${key}` : key, found);
}

class Plot {
  /* The last points; one without values is a gap, one without a time came with the join, or with what was missed. */
  constructor(changed) {
    this.changed = changed;
    this.canvas = document.querySelector('canvas');
    this.clear(0);
    const touch = () => { this.isDirty = true; changed(); };
    new ResizeObserver(touch).observe(this.canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', touch);
    for (const event of ['pointermove', 'pointerdown', 'pointerleave']) {
      this.canvas.addEventListener(event, ({ type, offsetX }) => { this.cursor = type === 'pointerleave' ? null : offsetX; touch(); });
    }
    this.touch = touch;
    $('legend').addEventListener('scroll', () => this.fade());
    new ResizeObserver(() => this.fade()).observe($('legend'));
  }

  clear(next) {
    this.next = next;               // the number of the first entry that was not read
    this.points = [];
    this.series = new Map();        // name: its colour, whether it is shown, its button
    this.others = new Set();        // names for which there is no series left
    this.read = this.numeric = this.scale = 0;
    this.isSample = false;
    this.cursor = null;
    $('plot').hidden = true;
    $('legend').replaceChildren($('more'), $('at'));
    $('more').textContent = '';
  }

  feed(log) {
    const fresh = log.since(this.next), step = Math.ceil(fresh.length / SAMPLES) || 1;
    this.isSample ||= step > 1 || log.next - this.next > fresh.length;
    this.next = log.next;
    fresh.forEach((entry, i) => {
      if (entry.kind === 'lost') this.add({ at: entry.at, values: null });
      if (entry.kind !== 'text' || i % step) return;
      this.read++;
      const values = numbersIn(entry.data);
      if (values) this.add({ at: entry.at, values });
    });
    if (this.points.length > POINTS) this.points.splice(0, this.points.length - POINTS);
    if ($('plot').hidden && this.numeric >= 3 && this.numeric * 2 >= this.read) this.reveal();
  }

  add(point) {
    this.points.push(point);
    this.isDirty = true;
    if (!point.values) return;
    this.numeric++;
    for (const [name, value] of Object.entries(point.values)) {
      if (this.series.has(name)) continue;
      if (this.series.size < SERIES) this.begin(name, value);
      else if (this.others.size < POINTS) $('more').textContent = `+${count(this.others.add(name).size)} not shown`;
    }
  }

  begin(name, value) {
    const shown = element('b'), button = element('button', '', element('i'), name, shown), colour = `--s${this.series.size}`;
    const isClock = value > 1e9 && /(^|[._])(t|ts|time|timestamp|epoch)$/i.test(name);   // it would dwarf all else
    const series = { name, colour, button, figure: shown, isClock };
    button.type = 'button';
    button.style.setProperty('--colour', `var(${colour})`);
    button.addEventListener('click', () => { this.turn(series, !series.isShown); button.title = ''; this.touch(); });
    this.series.set(name, series);
    this.turn(series, !isClock && (!this.scale || isBeside(Math.abs(value), this.scale)));
    $('more').before(button);
  }

  turn(series, isShown) {
    series.isShown = isShown;
    series.button.setAttribute('aria-pressed', isShown);
  }

  /* Where sizes differ by far one scale cannot show them all: it begins with that of the most series, the first of several. */
  reveal() {
    $('plot').hidden = false;
    const sized = [...this.series.values()].filter(({ isClock }) => !isClock).map(series => ({ series, size: this.sizeOf(series) }));
    const most = scale => sized.filter(({ size }) => size && isBeside(size, scale)).length;
    this.scale = sized.reduce((best, { size }) => (most(size) > most(best) ? size : best), 0);
    for (const { series, size } of sized) {
      this.turn(series, isBeside(size, this.scale));
      if (!series.isShown) series.button.title = 'Off: its values are of another size than those that are on';
    }
    this.fade();
  }

  sizeOf({ name }) { return this.points.reduce((size, { values }) => Math.max(size, Math.abs(values?.[name] ?? 0)), 0); }

  /* Where the legend scrolls sideways its ends show that there is more. */
  fade() {
    const { scrollLeft, scrollWidth, clientWidth } = $('legend');
    $('legend').toggleAttribute('data-before', scrollLeft > 2);
    $('legend').toggleAttribute('data-behind', scrollLeft + clientWidth < scrollWidth - 2);
  }

  draw() {
    if (!this.isDirty || $('plot').hidden) return;
    this.isDirty = false;
    const { canvas, points } = this, ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const style = getComputedStyle(canvas), colour = name => style.getPropertyValue(name), pen = canvas.getContext('2d');
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `12px ${colour('--sans')}`;

    const lines = [...this.series.values()].filter(series => series.isShown);
    const [low, high] = this.range(lines), { rows, step } = ticks(low, high, Math.max(2, Math.floor(height / 38)));
    const labels = rows.map(value => label(value, step));
    const left = Math.ceil(Math.max(...labels.map(text => pen.measureText(text).width))) + 14, right = width - 10, bottom = height - 22;
    const { places, live, from, to } = spread(points), across = place => left + place * (right - left);
    const x = i => across(places[i]), y = value => bottom - (value - low) / (high - low) * (bottom - 8);
    pen.lineWidth = 1;
    pen.textBaseline = 'middle';
    pen.textAlign = 'right';
    rows.forEach((value, i) => {
      pen.fillStyle = colour(value === 0 ? '--edge' : '--line');
      pen.fillRect(left, Math.round(y(value)), right - left, 1);
      pen.fillStyle = colour('--soft');
      pen.fillText(labels[i], left - 8, y(value));
    });
    if (live > 0) {
      pen.textAlign = 'left';
      if (across(live) - left > pen.measureText('earlier').width + 8) pen.fillText('earlier', left, height - 10);
      pen.fillStyle = colour('--edge');
      if (live < 1) for (let dash = 8; dash < bottom; dash += 6) pen.fillRect(Math.round(across(live)), dash, 1, 3);
      pen.fillStyle = colour('--soft');
    }
    if (live < 1) times(pen, from, to, across(live), right, height - 10);

    const nearest = this.cursor === null ? -1 : places.reduce((best, _, i) => (Math.abs(x(i) - this.cursor) < Math.abs(x(best) - this.cursor) ? i : best), 0);
    if (nearest >= 0) {
      pen.fillStyle = colour('--edge');
      pen.fillRect(Math.round(x(nearest)), 8, 1, bottom - 8);
    }
    for (const { name, colour: variable } of lines) trace(pen, points.map(({ values }) => values && values[name]), x, y, colour(variable));
    this.tell(points[nearest] ?? null);
    $('plot').dataset.count = this.numeric;
  }

  /* A little air above and below; down to zero where zero is near; never a range of nothing. */
  range(lines) {
    let low = Infinity, high = -Infinity;
    for (const { values } of this.points) {
      for (const { name } of lines) {
        const value = values?.[name];
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (low > high) return [0, 1];
    if (high - low <= Math.max(-low, high) * 1e-12) return [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
    const air = (high - low) * .06;
    return [low >= 0 && low < (high - low) / 2 ? 0 : low - air, high + air];
  }

  /* The values of a point, or the last ones, in the legend. */
  tell(point) {
    const names = [];
    for (const { name, figure: shown, isShown } of this.series.values()) {
      const value = (point ?? this.points.findLast(({ values }) => values && name in values))?.values?.[name];
      const text = value === undefined ? '' : figure(value);
      if (shown.textContent !== text) shown.textContent = text;
      if (isShown) names.push(`${name}, now ${text}`);
    }
    $('at').textContent = point ? (point.at === null ? 'earlier' : clock(point.at)) : this.isSample ? 'a sample: more arrive than can be drawn' : '';
    this.canvas.setAttribute('aria-label', `Plot of ${names.join('; ')}`);
    this.fade();
  }
}

const isBeside = (size, scale) => size === 0 || size <= scale && size * APART >= scale;

/*
 * Where points lie, from 0 to 1: side by side what came before anything live, then by time. What was missed and came later bears
 * no time of its own, and is spread between what is around it. `live` is where the second part begins.
 */
function spread(points) {
  const last = points.length - 1, first = points.findIndex(({ at }) => at !== null), at = points.map(point => point.at);
  if (first < 0) return { places: points.map((_, i) => i / (last || 1)), live: 1 };
  for (let i = first + 1, known = first; i <= last + 1; i++) {
    if (i <= last && at[i] === null) continue;
    const end = Math.max(at[known], at[i] ?? Date.now());   // a clock may be set back
    for (let between = known + 1; between < i; between++) at[between] = at[known] + (end - at[known]) * (between - known) / (i - known);
    if (i <= last) at[known = i] = end;
  }
  const from = at[first], to = at[last], live = first / (last || 1), share = i => (to > from ? (at[i] - from) / (to - from) : (i - first) / (last - first || 1));
  return { places: points.map((_, i) => (i < first ? i / (last || 1) : live + (1 - live) * share(i))), live, from, to };
}

/* Round times below the plot; where it is too short for one, its end. */
function times(pen, from, to, left, right, y) {
  const rough = (to - from) / Math.max(1, (right - left) / 110), step = 1000 * (TIME_STEPS.find(step => step * 1000 >= rough) ?? Math.ceil(rough / 86400000) * 86400);
  const zone = new Date(from).getTimezoneOffset() * 60000;
  let free = left;
  const write = (text, middle) => {
    const width = pen.measureText(text).width, begin = Math.max(left, Math.min(middle - width / 2, right - width));
    if (begin < free || begin + width > right + 1) return;
    pen.fillText(text, begin, y);
    free = begin + width + 16;
  };
  pen.textAlign = 'left';
  for (let tick = Math.ceil((from - zone) / step) * step + zone; tick <= to; tick += step) {
    write(clock(tick).slice(0, 8), left + (tick - from) / (to - from || 1) * (right - left));
  }
  if (free === left) write(clock(to), right);
}

/* One line, broken where there is a gap; a dot for each point where there are few. */
function trace(pen, values, x, y, colour) {
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 1.6;
  pen.lineJoin = 'round';
  pen.beginPath();
  let isDown = false;
  values.forEach((value, i) => {
    if (value === null) isDown = false;
    else if (value !== undefined) {
      if (isDown) pen.lineTo(x(i), y(value)); else pen.moveTo(x(i), y(value));
      isDown = true;
    }
  });
  pen.stroke();
  if (values.length > 60) return;
  values.forEach((value, i) => { if (typeof value === 'number') { pen.beginPath(); pen.arc(x(i), y(value), 2.2, 0, 7); pen.fill(); } });
}

/* Round values, 1, 2 or 5 times a power of ten apart: about `most` of them, more where that would be a single one. */
function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(times => times * power).find(step => step >= rough * .999), rows = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) rows.push(i * step);
  return rows.length < 2 && most < 20 ? ticks(low, high, most + 1) : { rows: rows.length ? rows : [low], step };
}

const label = (value, step) => Math.abs(value) >= 1e5
  ? value.toLocaleString('en', { notation: 'compact', maximumSignificantDigits: Math.max(1, Math.min(15, Math.ceil(Math.log10(Math.abs(value) / step)) + 1)) })
  : value.toLocaleString('en', { maximumFractionDigits: Math.max(0, Math.min(12, -Math.floor(Math.log10(step) + 1e-9))) });


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

/* Whether a position is behind another: MARK-NUMBER, the mark being OFFSET.FINGERPRINT or that of an incarnation of the channel. */
function isReached(position, goal) {
  const [[mark, offset, number], [goalMark, goalOffset, goalNumber]] = [position, goal].map(text => {
    const hyphen = text.lastIndexOf('-'), mark = text.slice(0, hyphen);
    return [mark, mark.includes('.') ? parseInt(mark) : -1, Number(text.slice(hyphen + 1))];
  });
  if (offset !== goalOffset) return offset > goalOffset;
  return mark !== goalMark || number >= goalNumber;
}

class Page {
  constructor() {
    this.isPending = false;
    this.restUntil = 0;
    this.wasOpen = false;
    this.dueAt = 0;                 // when the next attempt is
    this.openAt = 0;                // since when it is open
    this.isLive = false;            // whether what comes is new: published after the join
    this.goal = null;               // where the channel had come to when it was asked after the join
    this.total = 0;
    this.samples = [];
    this.status = { ...document.documentElement.dataset };   // exchange and input; the rest is in /status
    this.channel = null;
    this.log = new Log(() => this.changed());
    this.plot = new Plot(() => this.changed());
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
      onmessage: (data, position) => {
        this.total++;
        this.push({ ...kept(data), position }, position);
      },
      onlost: (messages, position) => this.lost(messages, position),
      onstate: (state, detail) => this.stand(state, detail),
      onbroker: isHere => {
        this.isAway = !isHere;
        this.sayState();
        this.note(isHere ? 'The broker is back' : 'The broker is away: nothing comes until it is back', isHere ? 'note' : 'note away');
      },
    });
  }

  note(data, kind = 'note') { this.log.push({ kind, data, at: Date.now() }); }

  /* What came with the join, or was missed, bears no time: when it was published nobody knows here. */
  push(entry, position) {
    this.log.push({ ...entry, at: this.isLive ? Date.now() : null });
    if (this.goal !== null && position !== null) this.isLive ||= isReached(position, this.goal);
  }

  lost(messages, position) {
    if (messages === null) this.log.lostUncounted = true; else this.log.lost += messages;
    const words = messages === null ? 'Some messages were lost' : `${plural(messages, 'message')} ${messages === 1 ? 'was' : 'were'} lost`;
    this.push({ kind: 'lost', data: words, position }, position);
  }

  stand(state, { code, reason, delay = 0 }) {
    $('send').setAttribute('aria-disabled', state !== 'open');
    const hadFocus = document.activeElement === $('retry');
    $('retry').hidden = $('countdown').hidden = state !== 'waiting';
    if (hadFocus && state !== 'waiting') $('log').focus({ preventScroll: true });
    this.dueAt = performance.now() + delay * 1000;
    if (state === 'open') {
      this.note('Connected');
      this.joined();
    } else if (this.wasOpen && state !== 'connecting') {
      this.note(`Disconnected: ${reason || (code === 1006 ? 'the connection broke' : `code ${code}`)}`, 'note away');
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
    // Nobody is left who could publish.
    const isOver = program === 'ended' && broker === null && input !== 'exchange';
    const state = this.channel?.state !== 'open' ? this.channel?.state : this.isAway ? 'away' : broker === 'blocked' ? 'blocked' : isOver ? 'over' : 'open';
    if (!state) return;
    $('state').dataset.state = state;
    if ($('state').textContent !== STATES[state]) $('state').textContent = STATES[state];
  }

  /* Asks where the channel has come to: what comes behind that is new. */
  async joined() {
    const openAt = this.openAt = performance.now();
    this.isLive = false;
    this.goal = null;
    const { position } = await this.ask() ?? {};
    if (openAt !== this.openAt) return;
    this.goal = position ?? null;
    this.isLive = this.goal === null || this.channel.position !== null && isReached(this.channel.position, this.goal);
  }

  /* The one end that is not passing: what was sent is not taken. So nothing is sent any more, and the rest goes on. */
  refused() {
    document.querySelector('form').hidden = true;
    $('composer').hidden = false;
    $('advice').textContent = 'This channel takes no messages: yours was not sent.';
    this.connect(this.channel.position);
  }

  send() {
    const text = $('message').value;
    if (!text) return;
    const isSent = this.channel.send(text);
    $('advice').textContent = isSent ? '' : 'Not connected: nothing was sent.';
    if (isSent) $('message').value = '';
  }

  poll() {
    if (!document.hidden && this.channel?.state === 'open') this.ask();
  }

  /* Returns how the channel is, or null. */
  async ask() {
    if (!this.hasStatus) return null;
    try {
      const status = await (await fetch(new URL('status', this.directory), { cache: 'no-store' })).json();
      this.learn(status);
      return status;
    } catch {
      $('viewers').textContent = '–';
      return null;
    }
  }

  /* Names the address of the broker that is in use, once for each change; while the broker is away there is none. */
  sayAddress(address) {
    if (!address || address === this.address) return;
    this.address = address;
    $('state').title = `Broker: ${address}`;
    this.note(`Broker: ${address}`);
  }

  learn(status) {
    this.status = status;
    this.sayAddress(status.broker_address);
    if (this.channel?.state === 'open') $('viewers').textContent = count(status.viewers);
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

  sayBlank() {
    const state = this.channel?.state, { program, messages, exchange } = this.status;
    const hasCome = this.log.entries.some(({ kind }) => !kind.startsWith('note'));
    if (hasCome || state === 'open' || state === 'waiting') $('blank').hidden = hasCome;   // while it connects it stays as it is
    if ($('blank').hidden) return;
    const isSilent = program === 'running' && !messages && performance.now() - this.openAt > SILENT_MS;
    const words = state !== 'open' ? [STATES.waiting, 'It is tried again by itself.']
      : isSilent ? ['The program has printed nothing yet', 'One that holds its output back until there is a lot of it needs --pty, or a flush after each line.']
      : ['Nothing has come yet', program === null ? `What is published to ${exchange} from now on appears here.` : 'What the program prints from now on appears here.'];
    [...$('blank').children].forEach((part, i) => { if (part.textContent !== words[i]) part.textContent = words[i]; });
  }

  tick() {
    const now = performance.now();
    $('countdown').textContent = `Trying again in ${Math.max(0, Math.ceil((this.dueAt - now) / 1000))} s`;
    if (this.channel) this.place(this.channel.position);  // which the server may tell after the page was drawn, and with no message
    this.sayBlank();
    this.samples.push([now, this.total]);
    if (this.samples.length > 5) this.samples.shift();
    const [[then, before]] = this.samples, rate = now > then ? Math.round((this.total - before) * 1000 / (now - then)) : 0;
    show('rate', rate, `${count(rate)}/s`);
  }

  changed() {
    if (this.isPending) return;
    this.isPending = true;
    requestAnimationFrame(now => { this.isPending = false; this.draw(now); });
  }

  draw(now) {
    if (now < this.restUntil) return this.changed();
    const { log } = this;
    const rows = log.draw();
    if (rows > RUSH_ROWS) this.restUntil = now + RUSH_MS;
    this.figures();
    try {
      if (!log.paused) this.plot.feed(log);
      this.plot.draw();
    } catch (error) {           // a plot that cannot be drawn is not shown, and nothing else stops for it
      console.error(error);
      this.plot.clear(log.next);
    }
  }

  figures() {
    const { log } = this, all = plural(log.messages, 'message');
    show('count', log.messages, log.messages > KEEP ? `last ${count(KEEP)} of ${all}` : log.messages ? all : '');
    const lost = [log.lost ? count(log.lost) : '', log.lostUncounted ? (log.lost ? 'and more' : 'some') : ''].filter(Boolean).join(' ');
    $('kept').querySelector('b').textContent = lost && `${lost} lost`;
    $('kept').dataset.count = Math.min(log.messages, KEEP);
    if (this.channel) this.place(this.channel.position);
    this.sayBlank();
  }

  /* What counts in full, and of what only names it the beginning: 4f1c…-17, 1207.9f3…-1. */
  place(position) {
    if (position === null || $('position').title === position) return;
    const [, offset, name, number] = /^(\d+\.)?(.*)(-\d+)$/.exec(position);
    $('position').title = position;
    $('position').replaceChildren(offset ?? '', element('span', '', name), number);
  }

  pause() {
    const { log } = this;
    log.paused = !log.paused;
    if (log.paused) log.hold(); else log.follow();
    const name = log.paused ? 'Resume' : 'Pause', button = $('pause');
    button.dataset.paused = log.paused;
    button.setAttribute('aria-label', name);
    button.querySelector('.label').textContent = name;
    button.querySelector('use').setAttribute('href', `#i-${name.toLowerCase()}`);
  }

  listen() {
    const on = (id, act) => $(id).addEventListener('click', act);
    on('retry', () => this.channel.retry());
    on('pause', () => this.pause());
    on('clear', () => { this.log.clear(); this.plot.clear(this.log.next); });
    on('latest', () => { if (this.log.paused) this.pause(); else this.log.follow(); $('log').focus({ preventScroll: true }); });
    document.querySelector('form').addEventListener('submit', event => { event.preventDefault(); this.send(); });
    document.addEventListener('visibilitychange', () => this.poll());
    document.addEventListener('keydown', event => { if (event.key === 'Escape' && !event.isComposing) this.pause(); });
  }
}

new Page();
