'use strict';
const KEEP_MESSAGES = 5000;         // the tail: enough to scroll back through, little enough to lay out anew in each frame
const KEEP_BYTES = 16 << 20;        // and its weight, so that 5,000 large messages do not fill the memory
const PREVIEW_LINES = 6, PREVIEW_BYTES = 64;        // of a message that has not been opened
const OPEN_CHARACTERS = 20000, OPEN_BYTES = 4096;   // what opening shows, and each "show more" adds
const FILTER_MS = 8, SAMPLES = 2000;                // what one frame may spend on matching, and read for the plot
const SERIES = 16, RECENT = 1000, BUCKETS = 2048;   // the plot: lines, points kept as they came, points kept for the whole history
const PLOT_MS = 50;                                 // between two drawings of the plot
const HISTORY = 100, HISTORY_KEY = 'wsbridge.console.history';

const $ = id => document.getElementById(id);
const grouped = new Intl.NumberFormat('en');
const count = number => grouped.format(number);
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? '' : 's'}`;

function element(tag, className = '', text = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function cell(className, text) {
  const made = element('span', className, text);
  made.setAttribute('role', 'gridcell');
  return made;
}

/* Shows a counter: the exact number for programs, words for people. */
function show(id, number, text) {
  const shown = $(id);
  if (shown.dataset.count !== String(number)) shown.dataset.count = number;
  if (shown.textContent !== text) shown.textContent = text;
}

function bytes(size) {
  if (size < 1000) return `${size} B`;
  for (const unit of ['kB', 'MB', 'GB']) if ((size /= 1000) < 999.5 || unit === 'GB') return `${size < 9.95 ? size.toFixed(1) : Math.round(size)} ${unit}`;
}

/* The length in UTF-8 of a well-formed string, without encoding it. */
function utf8Length(text) {
  let length = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit > 0x7f) length += unit > 0x7ff && (unit < 0xd800 || unit > 0xdfff) ? 2 : 1;
  }
  return length;
}

function clock(at) {
  const date = new Date(at), two = number => String(number).padStart(2, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

/* Control characters as the pictures that Unicode has for them: a terminal's escape sequences become visible and harmless. */
const visible = text => text.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, c => String.fromCharCode(c === '\x7f' ? 0x2421 : 0x2400 + c.charCodeAt()));

/* Indents JSON by its tokens, not by parsing and printing it: numbers stay digit for digit what they were. */
function pretty(text) {
  if (!/^\s*[[{]/.test(text) || text.length > 200000) return null;
  try { JSON.parse(text); } catch { return null; }
  let depth = 0;
  const line = () => '\n' + '  '.repeat(depth);
  return text.replace(/"(?:[^"\\]|\\.)*"|\{\s*\}|\[\s*\]|[[\]{},:]|\s+/g, token => {
    if (token === '{' || token === '[') return depth++, token + line();
    if (token === '}' || token === ']') return depth--, line() + token;
    if (token === ',') return ',' + line();
    if (token === ':') return ': ';
    return /^\s/.test(token) ? '' : token.startsWith('"') ? token : token[0] + token.at(-1);
  });
}


/* ---- The tail: what is kept of what came and went ---- */

class Entry {
  /* One line of the log. The fields below the first group are worked out when somebody looks, not when the message arrives. */
  constructor(way, data, size, number) {
    this.way = way;                 // 'in', 'out', or 'note' for what the console itself has to say
    this.data = data;               // a string or an ArrayBuffer
    this.size = size;               // in bytes
    this.number = number;           // its place among those of its way in this connection
    this.at = Date.now();
    this.id = 0;

    this.said = null;
    this.stream = '';
    this.matched = false; this.matchedBy = 0;
    this.height = 0; this.heightFor = 0;
    this.opened = 0;                // how many characters or bytes are shown; 0 is the preview
    this.bad = false;
  }

  get binary() { return typeof this.data !== 'string'; }

  /* The text, without the envelope in which --passstderr sends a line. */
  get text() {
    if (this.said === null) {
      this.said = this.data;
      if (this.way === 'in' && this.data.startsWith('{"stream":"std')) this.unwrap();
    }
    return this.said;
  }

  unwrap() {
    try {
      const { stream, data, ...rest } = JSON.parse(this.data);
      if (typeof data !== 'string' || !/^std(out|err)$/.test(stream) || Object.keys(rest).length) return;
      this.stream = stream;
      this.said = data;
    } catch { /* it only looked like one */ }
  }

  /* For the filter: binary is found by its hex digits and by its ASCII. */
  get searchable() {
    if (!this.binary) return this.text;
    const start = new Uint8Array(this.data, 0, Math.min(this.data.byteLength, OPEN_BYTES));
    return `${hexOf(start)}\n${asciiOf(start)}`;
  }
}

class Tail {
  /* The last messages, bounded in number and in bytes; entries have consecutive ids. `messages` counts also those that are gone. */
  constructor() { this.slots = new Array(KEEP_MESSAGES); this.next = 1; this.clear(); }

  push(entry) {
    if (this.next - this.first === KEEP_MESSAGES) this.drop();
    if (entry.way !== 'note') this.messages++;
    entry.id = this.next;
    this.slots[this.next++ % KEEP_MESSAGES] = entry;
    this.bytes += entry.size;
    while (this.bytes > KEEP_BYTES && this.next - this.first > 1) this.drop();
  }

  drop() {
    const slot = this.first++ % KEEP_MESSAGES;
    this.bytes -= this.slots[slot].size;
    this.slots[slot] = undefined;
  }

  at(id) { return this.slots[id % KEEP_MESSAGES]; }

  entries() {
    const list = new Array(this.next - this.first);
    for (let i = 0; i < list.length; i++) list[i] = this.at(this.first + i);
    return list;
  }

  clear() { this.slots.fill(undefined); this.first = this.next; this.bytes = this.messages = 0; }
}

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


/* ---- Hex ---- */

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
const hexOf = data => Array.from(data, byte => HEX[byte]).join(' ');
const asciiOf = data => Array.from(data, byte => byte > 31 && byte < 127 ? String.fromCharCode(byte) : '·').join('');

const offsetDigits = size => size > 0x10000 ? 8 : 4;
const hexDigits = width => width * 3 - 1 + (width > 8);
const dumpWidth = (size, width) => offsetDigits(size) + 2 + hexDigits(width) + 2 + width;

/* Lines of [offset, hex, ASCII], of `width` bytes each; data is the start of `size` bytes. */
function* dump(data, width, size) {
  const digits = offsetDigits(size);
  for (let offset = 0; offset < data.length; offset += width) {
    const part = data.subarray(offset, offset + width);
    let hex = hexOf(part.subarray(0, 8));
    if (part.length > 8) hex += `  ${hexOf(part.subarray(8))}`;
    if (data.length > width) hex = hex.padEnd(hexDigits(width));
    yield [offset.toString(16).padStart(digits, '0'), hex, asciiOf(part)];
  }
}

/* Bytes from "de ad be ef", "0xDE, 0xAD", "deadbeef". Throws an Error whose message says what is wrong. */
function fromHex(text) {
  const digits = text.replace(/0x/gi, ' ').replace(/[\s,:;]+/g, ' ').trim();
  const wrong = digits.match(/[^0-9a-f ]/i);
  if (wrong) throw new Error(`“${wrong[0]}” is not a hex digit.`);
  const odd = digits.split(' ').find(word => word.length % 2);
  if (odd) throw new Error(`A byte is two hex digits: “${odd.slice(0, 12)}” has ${odd.length === 1 ? 'one' : 'an odd number'}.`);
  return Uint8Array.from(digits.match(/[0-9a-f]{2}/gi) ?? [], pair => parseInt(pair, 16));
}


/* ---- The filter ---- */

class Filter {
  constructor() { this.version = 0; this.pattern = null; this.fault = ''; }

  /* Text is looked for as it is, in either case; between slashes it is a regular expression, with its flags. */
  set(text) {
    this.version++;
    this.fault = '';
    const regex = text.match(/^\/(.+)\/([a-z]*)$/s);
    try {
      if (regex) this.pattern = new RegExp(regex[1], regex[2].replace(/[gy]/g, ''));
      else this.pattern = text ? new RegExp(text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'), 'i') : null;
    } catch (error) {
      this.pattern = null;
      this.fault = error.message.replace(/^.*:\s/, '');
    }
  }

  /* The matching entries. Matching a large tail anew may take several frames: `unfinished` says that this was not the last. */
  apply(entries) {
    this.unfinished = false;
    if (!this.pattern) return entries;
    const until = performance.now() + FILTER_MS, found = [];
    let work = 0;
    for (const entry of entries) {
      if (entry.matchedBy !== this.version) {
        if (this.unfinished || (++work % 32 === 0 && performance.now() > until)) { this.unfinished = true; continue; }
        entry.matchedBy = this.version;
        entry.matched = this.pattern.test(entry.searchable) || (entry.stream === 'stderr' && this.pattern.test('stderr'));
      }
      if (entry.matched) found.push(entry);
    }
    return found;
  }
}


/* ---- The log ---- */

class Log {
  /* Draws the rows in sight. It follows what arrives, or is held at a copy of the tail: paused, scrolled back, or while text is selected. */
  constructor(tail, filter, changed) {
    Object.assign(this, { tail, filter, changed });
    this.box = $('log');
    this.rows = $('rows');
    this.built = new Map();         // entry id: its row
    this.list = [];
    this.offsets = new Float64Array(1);
    this.kept = null;               // the copy, while held
    this.paused = false;
    this.current = 0;               // id of the entry that the keyboard is at
    this.layout = 1;                // heights were worked out for this one
    this.characters = 80;           // in a line; until measured
    new ResizeObserver(() => this.measure()).observe(this.box);
    this.box.addEventListener('scroll', () => this.scrolled());
    this.box.addEventListener('click', event => this.clicked(event));
    this.box.addEventListener('keydown', event => this.key(event));
    document.addEventListener('selectionchange', () => {
      const selection = getSelection();
      if (!selection.isCollapsed && this.rows.contains(selection.anchorNode)) this.hold();
    });
    this.measure();
  }

  get entries() { return this.kept ?? this.tail.entries(); }

  get newer() { return this.kept ? this.tail.messages - this.heldAt : 0; }

  hold() {
    if (this.kept) return;
    this.kept = this.tail.entries();
    this.heldAt = this.tail.messages;
    this.changed();
  }

  follow() {
    if (this.paused) return;
    this.select(null);
    this.kept = null;
    this.changed();
  }

  clear() {
    this.tail.clear();
    this.current = 0;
    if (this.kept) { this.kept = []; this.heldAt = 0; }
    this.changed();
  }

  /* Learns from one row how many characters fit, and how high a line is. A new width makes every height a guess again. */
  measure() {
    this.view = this.box.clientHeight;
    this.changed();
    if (this.width === this.box.clientWidth) return;
    this.width = this.box.clientWidth;
    const anchor = this.kept && this.list[this.indexAt(this.box.scrollTop)];
    const row = this.build(new Entry('in', '0'.repeat(10), 10, 0));
    row.style.visibility = 'hidden';
    this.rows.append(row);
    const text = row.querySelector('.text'), range = document.createRange();
    range.selectNodeContents(text);
    this.characters = Math.max(8, Math.floor((text.clientWidth + .01) / (range.getBoundingClientRect().width / 10)));
    this.line = parseFloat(getComputedStyle(text).lineHeight);
    this.frame = row.offsetHeight - this.line;
    row.remove();
    this.layout++;
    for (const built of this.built.values()) built.remove();
    this.built.clear();
    this.arrange();
    if (anchor) this.box.scrollTop = this.offsets[Math.max(0, this.list.indexOf(anchor))];
  }

  /* How an entry is shown, so that its height is known before it is drawn: {text, lines, rest}, where rest is what is not shown. */
  content(entry) {
    if (entry.binary) {
      const limit = entry.opened || PREVIEW_BYTES, width = [16, 8].find(width => dumpWidth(entry.size, width) <= this.characters) ?? 4;
      const data = new Uint8Array(entry.data, 0, Math.min(limit, entry.size));
      return { data, width, lines: Math.max(1, Math.ceil(data.length / width)), rest: entry.size - data.length };
    }
    const whole = (entry.opened && pretty(entry.text)) || entry.text;
    const most = entry.opened ? Infinity : PREVIEW_LINES, start = whole.slice(0, entry.opened || this.characters * PREVIEW_LINES);
    let lines = 0, end = 0;
    for (const line of start.split('\n', entry.opened ? undefined : PREVIEW_LINES)) {
      const fits = Math.min(Math.max(1, Math.ceil(line.length / this.characters)), most - lines);
      if (!fits) break;
      lines += fits;
      end += Math.min(line.length, fits * this.characters) + 1;
    }
    end = Math.min(end, start.length);
    return { text: start.slice(0, end).replace(/\n$/, ''), lines, rest: whole.length - end };
  }

  height(entry) {
    if (entry.heightFor !== this.layout) {
      entry.heightFor = this.layout;
      if (entry.way === 'note') entry.height = 32;
      else {
        const { lines, rest } = this.content(entry);
        entry.height = this.frame + lines * this.line + (rest || entry.opened ? 29 : 0);
      }
    }
    return entry.height;
  }

  arrange() {
    const { list } = this;
    if (this.offsets.length <= list.length) this.offsets = new Float64Array(list.length * 2 + 1);
    for (let i = 0; i < list.length; i++) this.offsets[i + 1] = this.offsets[i] + this.height(list[i]);
    this.rows.style.height = `${this.offsets[list.length]}px`;
  }

  /* The index of the entry that lies at a height, by bisection. */
  indexAt(y) {
    let low = 0, high = Math.max(0, this.list.length - 1);
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.offsets[middle] <= y) low = middle; else high = middle - 1;
    }
    return low;
  }

  draw() {
    this.all = this.entries;
    this.list = this.filter.apply(this.all);
    this.arrange();
    this.settle();
    // A row's real height is known once it is drawn; where it is not the expected one, the rows are placed again, and what is read stays where it is.
    for (let round = 0; round < 4; round++) {
      const first = this.indexAt(this.box.scrollTop - .5) + (this.box.scrollTop > 0), before = this.offsets[first];
      if (!this.place()) break;
      this.arrange();
      this.settle(this.offsets[first] - before);
      if (round === 3) this.changed();
    }
    this.top = this.box.scrollTop;
    this.describe();
  }

  /* At the end while it follows; while it is held, moved only by what changed above. */
  settle(moved = 0) {
    if (!this.kept) this.box.scrollTop = this.offsets[this.list.length];
    else if (moved) this.box.scrollTop += moved;
  }

  /* Makes the rows in sight, in their order, and removes the others. Returns whether a height was not the expected one. */
  place() {
    const { list, offsets, built } = this;
    const top = this.box.scrollTop, from = Math.max(0, this.indexAt(top) - 3);
    let to = from;
    while (to < list.length && offsets[to] < top + this.view + 80) to++;
    const wanted = new Set(list.slice(from, to).map(entry => entry.id)), fresh = [];
    for (const [id, row] of built) {
      if (wanted.has(id)) continue;
      row.remove();
      built.delete(id);
    }
    let next = this.rows.firstChild;
    for (let i = from; i < to; i++) {
      const entry = list[i];
      let row = built.get(entry.id);
      if (!row) {
        row = this.build(entry);
        built.set(entry.id, row);
        fresh.push([entry, row]);
      }
      row.style.transform = `translateY(${offsets[i]}px)`;
      row.setAttribute('aria-rowindex', i + 1);
      if (row === next) next = next.nextSibling; else this.rows.insertBefore(row, next);
    }
    let surprised = false;
    for (const [entry, row] of fresh) {
      const height = row.offsetHeight;
      if (height !== entry.height) { entry.height = height; surprised = true; }
    }
    return surprised;
  }

  describe() {
    this.box.setAttribute('aria-rowcount', this.list.length);
    const current = this.built.get(this.current);
    if (current) this.box.setAttribute('aria-activedescendant', current.id);
    else this.box.removeAttribute('aria-activedescendant');
  }

  build(entry) {
    const row = element('div', `row ${entry.way}`);
    row.id = `row-${entry.id}`;
    row.dataset.id = entry.id;
    row.setAttribute('role', 'row');
    if (entry.id && entry.id === this.current) row.classList.add('current');
    if (entry.way === 'note') {
      row.append(cell('words', `${clock(entry.at).slice(0, 8)}  ${entry.data}`));
      row.classList.toggle('bad', entry.bad);
      return row;
    }
    const time = cell('time', clock(entry.at)), way = cell('way', entry.way === 'in' ? '↓' : '↑');
    time.title = new Date(entry.at).toISOString();
    way.setAttribute('aria-label', entry.way === 'in' ? 'received' : 'sent');
    row.append(time, way, cell('kind', entry.binary ? 'binary' : 'text'), cell('size', bytes(entry.size)), this.what(entry, row));
    row.setAttribute('aria-expanded', entry.opened > 0);
    return row;
  }

  what(entry, row) {
    const what = element('div', 'what'), shown = this.content(entry);
    what.setAttribute('role', 'gridcell');
    if (shown.data) {
      const hex = element('div', 'hex');
      for (const [offset, digits, ascii] of dump(shown.data, shown.width, entry.size)) {
        if (hex.firstChild) hex.append('\n');
        hex.append(element('i', '', offset), `  ${digits}  `, element('b', '', ascii));
      }
      what.append(entry.size ? hex : element('span', 'empty', 'empty'));
    } else {
      if (entry.stream === 'stderr') {
        row.classList.add('stderr');
        what.append(element('span', 'tag', 'stderr'));
      }
      what.append(entry.text ? element('div', 'text', visible(shown.text)) : element('span', 'empty', 'empty'));
    }
    if (shown.rest || entry.opened) what.append(this.more(entry, shown));
    return what;
  }

  more(entry, { rest }) {
    const box = element('div', 'more'), noun = entry.binary ? 'byte' : 'character', step = entry.binary ? OPEN_BYTES : OPEN_CHARACTERS;
    const button = (name, act) => {
      const made = element('button', '', name);
      made.type = 'button';
      made.tabIndex = entry.id === this.current ? 0 : -1;
      made.onclick = () => { act(made); this.box.focus({ preventScroll: true }); };
      box.append(made);
    };
    if (rest) button(rest > step ? `Show ${count(step)} more of ${plural(rest, noun)}` : `Show ${plural(rest, `more ${noun}`)}`, () => this.open(entry, entry.opened + step));
    if (entry.opened) {
      button('Show less', () => this.open(entry, 0));
      button('Copy', made => copy(entry.binary ? hexOf(new Uint8Array(entry.data)) : entry.text).then(() => { made.textContent = 'Copied'; }));
    }
    return box;
  }

  open(entry, opened) {
    this.hold();
    entry.opened = opened;
    this.rebuild(entry);
    if (opened) return;
    this.arrange();
    if (this.box.scrollTop + this.view >= this.offsets[this.list.length] - 4) this.follow();
  }

  rebuild(entry) {
    entry.heightFor = 0;
    this.built.get(entry.id)?.remove();
    this.built.delete(entry.id);
    this.changed();
  }

  toggle(entry) {
    if (entry?.way === 'note' || !entry) return;
    this.open(entry, entry.opened ? 0 : entry.binary ? OPEN_BYTES : OPEN_CHARACTERS);
  }

  clicked(event) {
    const row = event.target.closest('.row');
    if (!row || row.matches('.note') || event.target.closest('button') || !getSelection().isCollapsed) return;
    const entry = this.list.find(entry => entry.id === Number(row.dataset.id));
    this.select(entry);
    this.toggle(entry);
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.box, atEnd = scrollTop + clientHeight >= scrollHeight - 4;
    if (!this.kept && scrollTop < this.top - 2 && !atEnd) this.hold();
    else if (this.kept && atEnd && scrollTop > this.top && getSelection().isCollapsed) this.follow();
    this.changed();
  }

  select(entry) {
    const before = this.list.find(entry => entry.id === this.current);
    this.current = entry?.id ?? 0;
    for (const changed of [before, entry]) if (changed) this.rebuild(changed);
  }

  key(event) {
    if (event.target !== this.box || event.altKey) return;
    this.list = this.filter.apply(this.entries);    // the key may come before the frame that draws what the filter lets through now
    this.arrange();
    const { list } = this, index = list.findIndex(entry => entry.id === this.current), page = Math.max(1, Math.floor(this.view / this.line) - 2);
    if ((event.ctrlKey || event.metaKey) && event.key === 'c' && index >= 0 && getSelection().isCollapsed) {
      const entry = list[index];
      copy(entry.binary ? hexOf(new Uint8Array(entry.data)) : entry.text);
      return;
    }
    if (event.ctrlKey || event.metaKey) return;
    const from = index < 0 ? this.indexAt(this.box.scrollTop + this.view - 8) : index;
    const to = { ArrowUp: index < 0 ? from : from - 1, ArrowDown: from + 1, PageUp: from - page, PageDown: from + page, Home: 0, End: list.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      if (!this.paused && (event.key === 'End' || (event.key === 'ArrowDown' && from === list.length - 1))) return this.follow();
      this.hold();
      this.moveTo(Math.max(0, Math.min(list.length - 1, to)));
    } else if (index >= 0 && (event.key === 'Enter' || event.key === ' ' || (event.key === 'ArrowRight') !== list[index].opened > 0 && /^Arrow(Left|Right)$/.test(event.key))) {
      event.preventDefault();
      this.toggle(list[index]);
    }
  }

  moveTo(index) {
    const entry = this.list[index];
    if (!entry) return;
    this.select(entry);
    this.arrange();
    const top = this.offsets[index], bottom = this.offsets[index + 1];
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (bottom > this.box.scrollTop + this.view) this.box.scrollTop = bottom - this.view;
    this.top = this.box.scrollTop;
  }
}

async function copy(text) {
  try { return await navigator.clipboard.writeText(text); } catch { /* no clipboard here: plain HTTP has none */ }
  const area = element('textarea', 'unseen');
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}


/* ---- Numbers ---- */

const isNumber = word => word !== '' && Number.isFinite(Number(word));

/* The numbers in a line as [name, value] pairs, one more than can be plotted at most; null for a line that is not numeric. */
function numbersIn(text) {
  if (text.length > 10000 || !/^\s*[-+.\d[{]/.test(text)) return null;
  text = text.trim();
  if (isNumber(text)) return [['value', Number(text)]];
  if (text[0] === '{' || text[0] === '[') {
    try {
      const found = [];
      collect(JSON.parse(text), '', found);
      return found.length ? found : null;
    } catch { return null; }
  }
  const words = text.split(/\s*[,;]\s*|\s+/, SERIES + 1);
  return words.every(isNumber) ? words.map((word, i) => [`column ${i + 1}`, Number(word)]) : null;
}

function collect(value, name, found) {
  if (found.length > SERIES) return;
  if (typeof value === 'number') found.push([name, value]);
  else if (Array.isArray(value)) value.forEach((part, i) => collect(part, `${name}[${i}]`, found));
  else if (value && typeof value === 'object') for (const key of Object.keys(value)) collect(value[key], name ? `${name}.${key}` : key, found);
}

const STRIDE = 8;   // a point, or a bucket of points: number and time of the first; first, least, greatest, last value; number and time of the last

class Series {
  /* The last points as they came, and all of them in a bounded number of buckets, which hold twice as many points whenever they are full. */
  constructor(name, order) {
    this.name = name;
    this.order = order;
    this.recent = new Float64Array(RECENT * STRIDE);
    this.points = 0;
    this.history = new Float64Array(BUCKETS * STRIDE);
    this.buckets = 0;
    this.each = 1;
    this.inLast = 1;
    this.shown = true;
  }

  add(number, at, value) {
    if (!this.points && value > 1e9 && /(^|[._ ])(t|ts|time|timestamp|date|epoch)$/i.test(this.name)) this.shown = false;   // a clock dwarfs all else
    const point = [number, at, value, value, value, value, number, at];
    this.recent.set(point, this.points++ % RECENT * STRIDE);
    const { history } = this;
    if (this.buckets && this.inLast < this.each) {
      const b = (this.buckets - 1) * STRIDE;
      if (value < history[b + 3]) history[b + 3] = value;
      if (value > history[b + 4]) history[b + 4] = value;
      history.set([value, number, at], b + 5);
      this.inLast++;
      return;
    }
    if (this.buckets === BUCKETS) this.halve();
    history.set(point, this.buckets++ * STRIDE);
    this.inLast = 1;
  }

  halve() {
    const { history } = this;
    for (let i = 0; i < BUCKETS / 2; i++) {
      const a = i * 2 * STRIDE, b = a + STRIDE;
      const least = Math.min(history[a + 3], history[b + 3]), greatest = Math.max(history[a + 4], history[b + 4]);
      history.copyWithin(i * STRIDE, a, a + 3);
      history.set([least, greatest], i * STRIDE + 3);
      history.copyWithin(i * STRIDE + 5, b + 5, b + 8);
    }
    this.buckets = BUCKETS / 2;
    this.each *= 2;
  }

  /* Points in order, as one array of strides; `last` is how many of the newest are wanted, or Infinity. */
  data(last) {
    if (this.points > RECENT && last > RECENT) return this.history.subarray(0, this.buckets * STRIDE);
    const size = Math.min(last, this.points, RECENT), out = new Float64Array(size * STRIDE);
    for (let i = 0; i < size; i++) {
      const from = (this.points - size + i) % RECENT * STRIDE;
      out.set(this.recent.subarray(from, from + STRIDE), i * STRIDE);
    }
    return out;
  }

  /* A series with the points of this moment, which is otherwise this one. */
  copy() {
    const { recent, points, history, buckets } = this;
    return Object.assign(Object.create(this), { recent: recent.slice(), points, history: history.slice(), buckets });
  }

  get last() { return this.points ? this.recent[(this.points - 1) % RECENT * STRIDE + 5] : NaN; }
}

class Plot {
  /* Reads numbers from what arrives, a bounded sample a frame, and draws them once they are most of it. */
  constructor(changed) {
    this.changed = changed;
    this.canvas = $('plot-canvas');
    this.section = $('plot');
    this.hidden = false;            // by the user
    this.clear();
    new ResizeObserver(() => this.touch()).observe(this.canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.touch());
    this.canvas.addEventListener('pointermove', event => this.point(event.offsetX));
    this.canvas.addEventListener('pointerdown', event => this.point(event.offsetX));
    this.canvas.addEventListener('pointerleave', () => this.point(null));
    this.canvas.addEventListener('blur', () => this.point(null));
    this.canvas.addEventListener('keydown', event => this.key(event));
    $('plot-range').addEventListener('change', () => this.touch());
    $('plot-axis').addEventListener('change', () => { this.axisChosen = true; this.touch(); });
    $('plot-hide').addEventListener('click', () => { this.hide(true); $('plot-show').focus(); });
    $('plot-show').addEventListener('click', () => { this.hide(false); this.canvas.focus({ preventScroll: true }); });
  }

  clear() {
    this.series = new Map();
    this.more = false;              // there are more series than are plotted
    this.frozen = null;
    this.lines = this.numeric = this.row = 0;     // text lines read, those with numbers, and those of them in a row
    this.skipped = false;
    this.live = false;
    this.axisChosen = false;
    this.cursor = null;
    this.drawn = 0;
    this.section.hidden = $('plot-show').hidden = true;
    $('legend').replaceChildren();
    this.section.dataset.count = 0;
    this.touch();
  }

  touch() { this.dirty = true; this.changed(); }

  /* While frozen, what is drawn stays as it was, and can be read at leisure; the series go on behind it. */
  freeze(frozen) {
    this.frozen = frozen ? new Map([...this.series].map(([name, series]) => [name, series.copy()])) : null;
    this.touch();
  }

  get visible() { return [...(this.frozen ?? this.series).values()]; }

  hide(hidden) {
    this.hidden = hidden;
    this.section.hidden = hidden;
    $('plot-show').hidden = !hidden;
    this.touch();
  }

  /* Reads the entries with ids from `from` up to `tail.next`: all, or every so many-th when there are many. */
  feed(tail, from) {
    const start = Math.max(from, tail.first), step = Math.ceil((tail.next - start) / SAMPLES) || 1;
    if (step > 1 || start > from) this.skipped = true;
    for (let id = start; id < tail.next; id += step) {
      const entry = tail.at(id);
      if (entry.way !== 'in' || entry.binary || (entry.text && entry.stream === 'stderr')) continue;
      this.lines++;
      const numbers = numbersIn(entry.text);
      this.row = numbers ? this.row + 1 : 0;
      if (!numbers) continue;
      if (!this.numeric++) this.start = entry;
      for (const [name, value] of numbers) this.line(name)?.add(entry.number, entry.at, value);
      if (!this.frozen) this.dirty = true;
      if (!this.live && this.numeric >= 3 && (this.row >= 3 || this.numeric * 2 >= this.lines)) this.appear();
    }
  }

  line(name) {
    let series = this.series.get(name);
    if (!series) {
      if (this.series.size === SERIES) { this.more = true; return null; }
      series = new Series(name, this.series.size);
      this.series.set(name, series);
      this.legend();
    }
    return series;
  }

  appear() {
    this.live = true;
    // Lines that come in bursts would stand on one spot of a time axis.
    if (!this.axisChosen) $('plot-axis').value = Date.now() - this.start.at > this.numeric * 5 ? 'time' : 'number';
    this.legend();
    this.hide(this.hidden);
  }

  legend() {
    const legend = $('legend');
    for (const series of this.series.values()) {
      if (series.button) continue;
      const button = series.button = element('button');
      button.type = 'button';
      button.style.setProperty('--colour', `var(--s${series.order % 8})`);
      series.figure = element('b');
      button.append(element('i', series.order >= 8 ? 'dashed' : ''), series.name, series.figure);
      button.addEventListener('click', () => { series.shown = !series.shown; this.touch(); });
      legend.append(button);
    }
  }

  point(x) {
    if (this.cursor === x) return;
    this.cursor = x;
    this.touch();
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.box) return;
    event.preventDefault();
    const { left, right } = this.box, x = this.cursor ?? (step < 0 ? right + 8 : left - 8);
    this.point(Math.max(left, Math.min(right, x + step * 8)));
  }

  draw(now) {
    if (!this.dirty || this.section.hidden) return;
    if (now - this.drawn < PLOT_MS) return this.changed();
    this.drawn = now;
    this.dirty = false;
    this.section.dataset.count = this.numeric;
    this.section.dataset.series = this.series.size;
    this.paint();
  }

  paint() {
    const { canvas } = this, ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const style = getComputedStyle(canvas), colour = name => style.getPropertyValue(name);
    const pen = canvas.getContext('2d');
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `12px ${colour('--sans')}`;

    const range = $('plot-range').value, last = range === 'all' ? Infinity : Number(range), byTime = $('plot-axis').value === 'time' ? 1 : 0;
    const lines = this.visible.filter(series => series.shown && series.points).map(series => ({ series, data: series.data(last) }));
    const extent = extentOf(lines, byTime);
    this.figures(null);
    if (!extent) {
      pen.fillStyle = colour('--soft');
      pen.textAlign = 'center';
      pen.fillText('no series is switched on', width / 2, height / 2);
      return;
    }
    const { x0, x1 } = extent, [y0, y1] = roomy(extent.y0, extent.y1);
    const rows = ticks(y0, y1, Math.max(2, Math.floor(height / 44)));
    const labels = rows.map(value => numberLabel(value, rows.step));
    const box = this.box = { left: Math.ceil(Math.max(...labels.map(label => pen.measureText(label).width))) + 14, right: width - 10, top: 8, bottom: height - 22 };
    const scale = {
      x: value => box.left + (value - x0) / (x1 - x0 || 1) * (box.right - box.left),
      y: value => box.bottom - (value - y0) / (y1 - y0 || 1) * (box.bottom - box.top),
    };
    pen.lineWidth = 1;
    pen.textBaseline = 'middle';
    pen.textAlign = 'right';
    rows.forEach((value, i) => {
      const y = Math.round(scale.y(value)) + .5;
      pen.strokeStyle = colour(value === 0 ? '--edge' : '--line');
      pen.beginPath(); pen.moveTo(box.left, y); pen.lineTo(box.right, y); pen.stroke();
      pen.fillStyle = colour('--soft');
      pen.fillText(labels[i], box.left - 8, y);
    });
    const most = Math.max(2, Math.floor((box.right - box.left) / 90)), columns = byTime ? timeTicks(x0, x1, most) : ticks(x0, x1, most);
    pen.textBaseline = 'alphabetic';
    pen.fillStyle = colour('--soft');
    for (const value of columns) {
      const label = byTime ? timeLabel(value, columns.step) : numberLabel(value, columns.step), half = pen.measureText(label).width / 2;
      pen.textAlign = 'center';
      pen.fillText(label, Math.max(half, Math.min(width - half - 2, scale.x(value))), height - 5);
    }
    pen.save();
    pen.beginPath(); pen.rect(box.left - 3, 0, box.right - box.left + 6, box.bottom + 4); pen.clip();
    for (const { series, data } of lines) trace(pen, data, byTime, scale, ratio, colour(`--s${series.order % 8}`), series.order >= 8);
    if (this.cursor !== null) this.crosshair(pen, lines, byTime, scale, colour);
    pen.restore();
    canvas.setAttribute('aria-label', `Plot of ${lines.map(({ series }) => `${series.name}, now ${figure(series.last)}`).join('; ')}`);
  }

  /* Marks the points nearest to the cursor; the legend shows their values. */
  crosshair(pen, lines, byTime, { x, y }, colour) {
    let nearest = NaN;
    const distance = data => i => Math.abs(x(data[i + byTime]) - this.cursor);
    const picked = lines.map(({ series, data }) => {
      const far = distance(data);
      let best = 0;
      for (let i = STRIDE; i < data.length; i += STRIDE) if (far(i) <= far(best)) best = i;
      if (!(Math.abs(x(nearest) - this.cursor) <= far(best))) nearest = data[best + byTime];
      return { series, at: data[best + byTime], value: data[best + 5] };
    });
    const at = Math.round(x(nearest)) + .5;
    pen.strokeStyle = colour('--edge');
    pen.beginPath(); pen.moveTo(at, this.box.top); pen.lineTo(at, this.box.bottom); pen.stroke();
    for (const { series, at, value } of picked) {
      pen.fillStyle = colour(`--s${series.order % 8}`);
      pen.strokeStyle = colour('--card');
      pen.lineWidth = 2;
      pen.beginPath(); pen.arc(x(at), y(value), 4.5, 0, 7); pen.fill(); pen.stroke();
    }
    const label = byTime ? clock(nearest) : `message ${count(nearest)}`, half = pen.measureText(label).width / 2 + 6;
    const middle = Math.max(this.box.left + half, Math.min(this.box.right - half, at));
    pen.fillStyle = colour('--ink');
    pen.beginPath(); pen.roundRect(middle - half, 2, half * 2, 20, 5); pen.fill();
    pen.fillStyle = colour('--card');
    pen.textAlign = 'center';
    pen.fillText(label, middle, 16);
    this.figures(picked);
  }

  figures(picked) {
    for (const series of this.visible) {
      const value = picked?.find(pick => pick.series === series)?.value ?? series.last, text = figure(value);
      if (series.figure.textContent !== text) series.figure.textContent = text;
      series.button.setAttribute('aria-pressed', series.shown);
    }
    const remark = [this.more ? `only the first ${SERIES} series` : '', this.skipped ? 'a sample: more arrive than can be drawn' : ''].filter(Boolean).join(', ');
    this.remark ??= element('p');
    if (this.remark.textContent !== remark) this.remark.textContent = remark;
    if (remark && !this.remark.isConnected || this.remark.nextSibling) $('legend').append(this.remark);
  }
}

const figure = value => Number.isFinite(value) ? Number(value.toPrecision(6)).toLocaleString('en', { maximumSignificantDigits: 6 }) : '';

function extentOf(lines, x) {
  const extent = { x0: Infinity, x1: -Infinity, y0: Infinity, y1: -Infinity };
  for (const { data } of lines) {
    extent.x0 = Math.min(extent.x0, data[x]);
    extent.x1 = Math.max(extent.x1, data[data.length - 2 + x]);
    for (let i = 0; i < data.length; i += STRIDE) {
      if (data[i + 3] < extent.y0) extent.y0 = data[i + 3];
      if (data[i + 4] > extent.y1) extent.y1 = data[i + 4];
    }
  }
  return lines.length ? extent : null;
}

/* A little air above and below; down to zero where zero is near; never a range of nothing. */
function roomy(low, high) {
  if (low === high) return low === 0 ? [-1, 1] : [low - Math.abs(low) / 10, high + Math.abs(high) / 10];
  const air = (high - low) * .06;
  if (low >= 0 && low < (high - low) * .5) return [0, high + air];
  return [low - air, high + air];
}

/* Round values (1, 2 or 5 times a power of ten) from low to high, about `most` of them; `.step` is their distance. */
function ticks(low, high, most) {
  const rough = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(rough));
  return steps(low, high, [1, 2, 5, 10].map(times => times * power).find(step => step >= rough * .999) ?? rough, 0);
}

const TIME_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 216e5, 432e5, 864e5];

function timeTicks(low, high, most) {
  const rough = (high - low) / most;
  return steps(low, high, TIME_STEPS.find(step => step >= rough) ?? 864e5, new Date(low).getTimezoneOffset() * 6e4);
}

function steps(low, high, step, shift) {
  const values = [];
  for (let i = Math.ceil((low - shift) / step); i * step + shift <= high + step * 1e-6 && values.length < 100; i++) values.push(i * step + shift);
  if (!values.length) values.push(low);
  values.step = step;
  return values;
}

function timeLabel(at, step) {
  const text = clock(at);
  return step < 1000 ? text.replace(/\.?0+$/, '') : step < 6e4 ? text.slice(0, 8) : text.slice(0, 5);
}

function numberLabel(value, step) {
  if (value === 0) return '0';
  const large = Math.abs(value);
  if (large >= 1e15 || step < 1e-6) return value.toExponential(Math.max(0, Math.min(6, Math.floor(Math.log10(large)) - Math.floor(Math.log10(step)))));
  const [unit, name] = [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e4, 'k']].find(([size]) => large >= size && step >= size / 1e4) ?? [1, ''];
  const divide = name === 'k' ? 1e3 : unit, digits = Math.max(0, -Math.floor(Math.log10(step / divide) + 1e-9));
  return (value / divide).toLocaleString('en', { minimumFractionDigits: 0, maximumFractionDigits: digits }) + (name && ` ${name}`);
}

/* One line. Points that fall on one column of pixels become first, least, greatest and last: looks the same, draws bounded work. */
function trace(pen, data, byTime, { x, y }, ratio, colour, dashed) {
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 1.6;
  pen.lineJoin = 'round';
  pen.setLineDash(dashed ? [5, 3] : []);
  pen.beginPath();
  let column = NaN, least, greatest, final;
  const flush = () => {
    if (least !== greatest) { pen.lineTo(column, y(least)); pen.lineTo(column, y(greatest)); }
    pen.lineTo(column, y(final));
  };
  const point = (at, value) => {
    const here = Math.round(x(at) * ratio) / ratio;
    if (here === column) {
      least = Math.min(least, value);
      greatest = Math.max(greatest, value);
    } else {
      if (!Number.isNaN(column)) flush();
      pen.lineTo(here, y(value));
      column = here;
      least = greatest = value;
    }
    final = value;
  };
  for (let i = 0; i < data.length; i += STRIDE) {
    const from = data[i + byTime], to = data[i + 6 + byTime], [first, low, high, last] = data.subarray(i + 2, i + 6);
    point(from, first);
    if (low < first && low < last) point((from + to) / 2, low);
    if (high > first && high > last) point((from + to) / 2, high);
    if (to !== from) point(to, last);
  }
  flush();
  pen.stroke();
  pen.setLineDash([]);
  if (data.length <= 60 * STRIDE) {
    for (let i = 0; i < data.length; i += STRIDE) { pen.beginPath(); pen.arc(x(data[i + byTime]), y(data[i + 5]), 2.2, 0, 7); pen.fill(); }
  }
}


/* ---- The connection ---- */

const CLOSE_CODES = {
  1000: 'the program ended', 1001: 'the server is shutting down', 1002: 'protocol error', 1003: 'this kind of message is not accepted',
  1005: 'closed without a code', 1007: 'a text message was not UTF-8', 1008: 'refused by a rule of the server', 1009: 'message too long',
  1010: 'the server lacks an extension', 1011: 'the program failed', 1012: 'the server restarts', 1013: 'turned away',
  1014: 'a gateway got a bad answer', 1015: 'TLS failed',
};

/* The close of a session in words: what the code means, and the reason that came with it. */
function closeWords({ code, reason }, wasOpen, byUser) {
  let words = CLOSE_CODES[code] ?? (code >= 4000 ? 'a code of the program’s own' : code >= 3000 ? 'a registered code' : 'a code without a meaning');
  if (code === 1006) words = wasOpen ? 'no close frame: the connection was lost' : 'no close frame: refused before the upgrade (the log of the server says why), or no server there';
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


/* ---- Download ---- */

const iso = at => new Date(at).toISOString();

function base64(data) {
  let binary = '';
  for (let i = 0; i < data.length; i += 8192) binary += String.fromCharCode(...data.subarray(i, i + 8192));
  return btoa(binary);
}

function asText(entries) {
  return entries.map(entry => {
    if (entry.way === 'note') return `${iso(entry.at)} --  ${entry.data}\n`;
    const head = `${iso(entry.at)} ${entry.way === 'in' ? 'in ' : 'out'} `;
    if (!entry.binary) return `${head}${entry.stream === 'stderr' ? 'stderr: ' : ''}${entry.text}\n`;
    return `${head}binary, ${plural(entry.size, 'byte')}\n${[...dump(new Uint8Array(entry.data), 16, entry.size)].map(line => `    ${line.join('  ')}\n`).join('')}`;
  });
}

function asJsonLines(entries) {
  return entries.filter(entry => entry.way !== 'note').map(entry => {
    const content = entry.binary ? { kind: 'binary', base64: base64(new Uint8Array(entry.data)) } : { kind: 'text', text: entry.data };
    return `${JSON.stringify({ time: iso(entry.at), direction: entry.way, ...content })}\n`;
  });
}

function download(parts, type, ending) {
  const link = element('a'), url = URL.createObjectURL(new Blob(parts, { type }));
  link.href = url;
  link.download = `${location.hostname || 'wsbridge'}-${iso(Date.now()).slice(0, 19).replace(/:/g, '-')}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}


/* ---- The page ---- */

class Page {
  constructor() {
    this.tallies = { in: new Tally('in'), out: new Tally('out') };
    this.tail = new Tail();
    this.filter = new Filter();
    this.pending = false;
    this.plotted = this.tail.next;
    this.plot = new Plot(() => this.changed());
    this.log = new Log(this.tail, this.filter, () => this.changed());
    this.connection = new Connection(this);
    this.composer = new Composer(data => this.send(data));
    this.listen();
    const secure = location.protocol === 'https:' ? 'wss' : 'ws';
    $('url').value = location.host ? `${secure}://${location.host}${location.pathname}${location.search}` : 'ws://localhost:8080/';
    this.stand();
  }

  /* The handler of what arrives, a million times if need be: count it, keep it, ask for a frame. */
  received(data) {
    const size = typeof data === 'string' ? utf8Length(data) : data.byteLength, tally = this.tallies.in;
    tally.add(size);
    this.tail.push(new Entry('in', data, size, tally.messages));
    this.changed();
  }

  /* Throws an Error with advice when there is no open connection. */
  send(data) {
    if (this.connection.state !== 'open') throw new Error('Not connected: connect first.');
    this.connection.socket.send(data);
    const size = typeof data === 'string' ? new TextEncoder().encode(data).length : data.byteLength;
    this.tallies.out.add(size);
    this.tail.push(new Entry('out', data, size, this.tallies.out.messages));
    if (!this.log.paused) this.log.follow();
    this.changed();
  }

  note(words, bad = false) {
    const entry = new Entry('note', words, 0, 0);
    entry.bad = bad;
    this.tail.push(entry);
    this.changed();
  }

  changed() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(now => { this.pending = false; this.draw(now); });
  }

  draw(now) {
    this.plot.feed(this.tail, this.plotted);
    this.plotted = this.tail.next;
    this.tallies.in.draw();
    this.tallies.out.draw();
    const waiting = this.connection.state === 'open' ? this.connection.socket.bufferedAmount : 0;
    $('waiting').hidden = !waiting;
    if (waiting) show('waiting', waiting, `${bytes(waiting)} not yet taken`);
    const { newer, paused } = this.log;
    show('missed', paused ? newer : 0, paused && newer ? `+${count(newer)}` : '');
    $('latest').hidden = paused || !this.log.kept;
    show('latest', newer, newer ? `↓ ${plural(newer, 'newer message')}` : '↓ To the end');
    this.plot.draw(now);
    this.log.draw();
    this.summarise();
    if (this.filter.unfinished) this.changed();
  }

  summarise() {
    const { list, all: entries, newer } = this.log, total = this.tail.messages - newer, { pattern, fault } = this.filter;
    const messages = entries.reduce((sum, entry) => sum + (entry.way !== 'note'), 0);
    const matches = pattern ? list.reduce((sum, entry) => sum + (entry.way !== 'note'), 0) : messages;
    show('kept', messages, !total ? '' : messages < total ? `last ${count(messages)} of ${plural(total, 'message')}` : plural(messages, 'message'));
    show('matches', matches, fault || (pattern ? `${count(matches)} of ${count(messages)}` : ''));
    $('matches').classList.toggle('bad', Boolean(fault));
    $('filter').setAttribute('aria-invalid', Boolean(fault));
    $('filter').style.setProperty('--taken', `${$('matches').offsetWidth + 16}px`);
    $('blank').hidden = list.length > 0;
    if (!list.length) {
      $('blank').firstElementChild.textContent = entries.length ? 'Nothing matches' : this.connection.state === 'open' ? 'Connected, nothing has come yet' : 'Nothing here yet';
      $('blank-hint').textContent = entries.length ? 'None of the messages that are kept matches the filter.' : this.connection.state === 'open' ? 'What the program prints appears here.' : 'Connect starts the program: what it prints appears here.';
    }
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
    this.changed();
  }

  tick() {
    const now = performance.now(), { in: incoming, out: outgoing } = this.tallies;
    incoming.sample(now);
    outgoing.sample(now);
    if (this.connection.state === 'closed' && !incoming.rate && !outgoing.rate) {
      clearInterval(this.ticking);
      this.ticking = undefined;
    }
    this.changed();
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
    this.plot.clear();
    this.plot.freeze(this.log.paused);
    this.plotted = this.tail.next;
    this.stand();
  }

  say(words, bad = false, code = '') {
    $('close-info').textContent = words;
    $('close-info').dataset.code = code;
    $('close-info').classList.toggle('bad', bad);
  }

  opened(socket) {
    this.note(`Connected to ${socket.url}${socket.protocol && `, subprotocol ${socket.protocol}`}`);
    const waited = document.activeElement === $('disconnect');
    this.stand();
    if (waited && !matchMedia('(pointer: coarse)').matches) $('message').focus();   // a telephone would open its keyboard
  }

  closed(code, words, lasted) {
    const bad = ![1000, 1001, 1005].includes(code) && words !== 'you disconnected';
    const after = lasted ? `, after ${lasted < 10 ? lasted.toFixed(1) : count(Math.round(lasted))} s` : '';
    this.say(`${code}, ${words}`, bad, code);
    this.note(`Closed: ${code}, ${words}${after}`, bad);
    for (const tally of Object.values(this.tallies)) tally.draw();   // who sees it closed sees the final count
    this.stand();
  }

  pause() {
    const { log } = this;
    log.paused = !log.paused;
    if (log.paused) log.hold(); else log.follow();
    this.plot.freeze(log.paused);
    const name = log.paused ? 'Resume' : 'Pause';
    $('pause').dataset.paused = log.paused;
    $('pause').setAttribute('aria-label', name);
    $('pause-label').textContent = name;
    $('pause').querySelector('use').setAttribute('href', `#i-${name.toLowerCase()}`);
  }

  save(make, type, ending) {
    download(make(this.log.list), type, ending);
    this.closeMenu();
  }

  closeMenu() { $('download-menu').open = false; $('download').focus(); }

  listen() {
    const on = (id, event, act) => $(id).addEventListener(event, act);
    on('connection', 'submit', event => { event.preventDefault(); if (this.connection.state === 'closed') this.connect(); });
    on('disconnect', 'click', () => { if (this.connection.state !== 'closing') this.connection.close(); this.stand(); });
    on('pause', 'click', () => this.pause());
    on('latest', 'click', () => { this.log.follow(); this.log.box.focus({ preventScroll: true }); });
    on('clear', 'click', () => { this.log.clear(); this.plot.clear(); this.plot.freeze(this.log.paused); this.plotted = this.tail.next; });
    on('filter', 'input', () => { this.filter.set($('filter').value); this.changed(); });
    on('download-text', 'click', () => this.save(asText, 'text/plain', 'txt'));
    on('download-jsonl', 'click', () => this.save(asJsonLines, 'application/jsonl', 'jsonl'));
    on('download', 'click', () => {  // before the menu opens, so that nothing in it moves under the pointer
      const messages = this.log.list.filter(entry => entry.way !== 'note').length;
      $('download-what').textContent = `${plural(messages, this.filter.pattern ? 'matching message' : 'message')}`;
    });
    on('help-open', 'click', () => $('help').showModal());
    on('help-close', 'click', () => $('help').close());
    on('help', 'click', event => { if (event.target === $('help')) $('help').close(); });
    document.addEventListener('click', event => { if (!$('download-menu').contains(event.target)) $('download-menu').open = false; });
    document.addEventListener('keydown', event => this.key(event));
  }

  key(event) {
    if (event.isComposing || event.altKey || $('help').open) return;
    const typing = event.target.matches('input[type="text"], textarea');
    if (event.key === 'Escape') {
      event.preventDefault();
      if ($('download-menu').open) this.closeMenu(); else this.pause();
    } else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.composer.submit();
    } else if (!typing && !event.ctrlKey && !event.metaKey && event.key === '/') {
      event.preventDefault();
      $('filter').focus();
      $('filter').select();
    } else if (!typing && !event.ctrlKey && !event.metaKey && event.key === '?') {
      event.preventDefault();
      $('help').showModal();
    }
  }
}

new Page();
