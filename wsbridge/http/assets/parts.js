'use strict';
/* What the console and the page of a channel share: the tail of messages, the log, its filter, its download, the view of them all. */

const KEEP_MESSAGES = 5000;         // the tail: enough to scroll back through, little enough to lay out anew in each frame
const KEEP_BYTES = 16 << 20;        // and its weight, so that 5,000 large messages do not fill the memory
const PREVIEW_LINES = 6, PREVIEW_BYTES = 64;        // of a message that has not been opened
const OPEN_CHARACTERS = 20000, OPEN_BYTES = 4096;   // what opening shows, and each "show more" adds
const FILTER_MS = 8;                                // what one frame may spend on matching

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
  /* One line of the log. The fields below the first group are computed when the line is shown, not when the message arrives. */
  constructor(way, data, size, number, at = Date.now()) {
    this.way = way;                 // 'in', 'out', or 'note' for what the page itself has to say
    this.data = data;               // a string or an ArrayBuffer
    this.size = size;               // in bytes
    this.number = number;           // its place among those of its way in this connection
    this.at = at;                   // in milliseconds; null for an earlier message whose time is unknown
    this.id = 0;

    this.said = null;
    this.stream = '';
    this.matched = false; this.matchedBy = 0;
    this.height = 0; this.heightFor = 0;
    this.opened = 0;                // how many characters or bytes are shown; 0 is the preview
    this.tone = '';                 // of a note: 'bad', 'wait' or 'lost'
    this.title = '';
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
      if (entry.tone) row.classList.add(entry.tone);
      return row;
    }
    const time = cell('time', entry.at === null ? 'earlier' : clock(entry.at)), way = cell('way', entry.way === 'in' ? '↓' : '↑');
    time.title = entry.at === null ? 'before this page connected' : iso(entry.at);
    row.title = entry.title;
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


/* ---- Download ---- */

const iso = at => at === null ? 'earlier' : new Date(at).toISOString();

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
    return `${JSON.stringify({ time: entry.at === null ? null : iso(entry.at), direction: entry.way, ...content })}\n`;
  });
}

function download(parts, type, ending) {
  const link = element('a'), url = URL.createObjectURL(new Blob(parts, { type }));
  link.href = url;
  link.download = `${location.hostname || 'wsbridge'}-${iso(Date.now()).slice(0, 19).replace(/:/g, '-')}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}




/* ---- The view: log, plot, filter and download of one tail ---- */

class View {
  /* `blank(isEmpty)` returns a headline and a hint for a log without rows; `drawn(now)` is called with each frame. */
  constructor({ blank, drawn }) {
    Object.assign(this, { blank, drawn });
    this.pending = false;
    this.tail = new Tail();
    this.filter = new Filter();
    this.plotted = this.tail.next;
    this.plot = new Plot(() => this.changed());
    this.log = new Log(this.tail, this.filter, () => this.changed());
    this.listen();
  }

  push(entry) { this.tail.push(entry); this.changed(); }

  note(words, tone = '') {
    const entry = new Entry('note', words, 0, 0);
    entry.tone = tone;
    this.push(entry);
  }

  changed() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(now => { this.pending = false; this.draw(now); });
  }

  draw(now) {
    this.drawn(now);
    const { newer, paused } = this.log;
    show('missed', paused ? newer : 0, paused && newer ? `+${count(newer)}` : '');
    $('latest').hidden = paused || !this.log.kept;
    show('latest', newer, newer ? `↓ ${plural(newer, 'newer message')}` : '↓ To the end');
    try {                       // a plot that cannot be drawn is not shown, and nothing else stops for it
      this.plot.feed(this.tail, this.plotted);
      this.plot.draw(now);
    } catch (error) {
      console.error(error);
      this.plot.clear();
    }
    this.plotted = this.tail.next;
    this.log.draw();
    this.summarise();
    if (this.filter.unfinished) this.changed();
  }

  summarise() {
    const { list, all: entries, newer } = this.log, total = this.tail.messages - newer, { pattern, fault } = this.filter;
    const messages = entries.reduce((sum, entry) => sum + (entry.way !== 'note'), 0);
    const matches = pattern ? list.reduce((sum, entry) => sum + (entry.way !== 'note'), 0) : messages;
    show('kept', messages, !total ? '' : messages < total ? `last ${count(messages)} of ${plural(total, 'message')}` : plural(messages, 'message'));
    $('kept').dataset.total = this.tail.messages;
    show('matches', matches, fault || (pattern ? `${count(matches)} of ${count(messages)}` : ''));
    $('matches').classList.toggle('bad', Boolean(fault));
    $('filter').setAttribute('aria-invalid', Boolean(fault));
    $('filter').style.setProperty('--taken', `${$('matches').offsetWidth + 16}px`);
    this.sayBlank();
  }

  /* Only where there is no message in the log: notes alone leave room for words. */
  sayBlank() {
    const { list, all = [] } = this.log, isEmpty = !all.some(entry => entry.way !== 'note');
    const words = isEmpty ? this.blank(all.length > 0) : list.length ? null : ['Nothing matches', 'No message in the log matches the filter.'];
    $('blank').hidden = !words;
    if (words) ['strong', '#blank-hint'].forEach((part, i) => { if ($('blank').querySelector(part).textContent !== words[i]) $('blank').querySelector(part).textContent = words[i]; });
  }

  /* Begins the plot anew, with what comes from now on. */
  replot() {
    this.plot.clear();
    this.plot.freeze(this.log.paused);
    this.plotted = this.tail.next;
  }

  clear() {
    this.log.clear();
    this.replot();
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
    on('pause', 'click', () => this.pause());
    on('latest', 'click', () => { this.log.follow(); this.log.box.focus({ preventScroll: true }); });
    on('clear', 'click', () => this.clear());
    on('filter', 'input', () => { this.filter.set($('filter').value); this.changed(); });
    on('download-text', 'click', () => this.save(asText, 'text/plain', 'txt'));
    on('download-jsonl', 'click', () => this.save(asJsonLines, 'application/jsonl', 'jsonl'));
    on('download', 'click', () => {  // before the menu opens, so that nothing in it moves under the pointer
      const messages = this.log.list.filter(entry => entry.way !== 'note').length;
      $('download-what').textContent = `${plural(messages, this.filter.pattern ? 'matching message' : 'message')}`;
    });
    document.addEventListener('click', event => { if (!$('download-menu').contains(event.target)) $('download-menu').open = false; });
    document.addEventListener('keydown', event => this.key(event));
  }

  /* Escape pauses, a slash goes to the filter. */
  key(event) {
    if (event.isComposing || event.altKey || event.ctrlKey || event.metaKey || document.querySelector('dialog[open]')) return;
    if (event.key === 'Escape') {
      event.preventDefault();
      if ($('download-menu').open) this.closeMenu(); else this.pause();
    } else if (event.key === '/' && !event.target.matches('input[type="text"], textarea')) {
      event.preventDefault();
      $('filter').focus();
      $('filter').select();
    }
  }
}
