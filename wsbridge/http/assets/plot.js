'use strict';
/* What the console and the page of a channel share: the plot of the numbers in messages. */

const SAMPLES = 2000;                               // messages that one frame may read for the plot
const SERIES = 16, RECENT = 1000, BUCKETS = 2048;   // lines, points kept as they came, points kept for the whole history
const PLOT_MS = 50;                                 // between two drawings
const SHARE = 1 / 8, STAYS = 1 / 16;                // of a shared scale's height: what a series must fill to join it, and to stay
const AXES = 4, NARROW_AXES = 2, NARROW = 640;      // axes that are drawn, and in a canvas of fewer pixels


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
    $('plot-scale').addEventListener('change', () => this.touch());
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
    this.drawn = this.lastAt = 0;
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
      if (entry.at !== null) this.lastAt = Math.max(this.lastAt, entry.at);   // a message without a time lies where the one before it does
      for (const [name, value] of numbers) this.line(name)?.add(entry.number, this.lastAt || Date.now(), value);
      if (!this.frozen) this.dirty = true;
      if (!this.live && this.numeric >= 3 && (this.row >= 3 || this.numeric * 2 >= this.lines) && this.visible.some(series => series.shown)) this.appear();
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
    if (!this.axisChosen) $('plot-axis').value = this.lastAt - (this.start.at ?? this.lastAt) > this.numeric * 5 ? 'time' : 'number';
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
    const range = $('plot-range').value, last = range === 'all' ? Infinity : Number(range), byTime = $('plot-axis').value === 'time' ? 1 : 0;
    const lines = this.visible.filter(series => series.shown && series.points).map(series => lineOf(series, series.data(last)));
    this.figures(null);
    this.canvas.hidden = !lines.length;     // no empty plot: the legend says why
    if (!lines.length) return;
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

    const [x0, x1] = [Math.min(...lines.map(({ data }) => data[byTime])), Math.max(...lines.map(({ data }) => data[data.length - 2 + byTime]))];
    const scales = $('plot-scale').value === 'one' ? [scaleFor(lines)] : scalesOf(lines);
    const box = this.box = { left: 14, right: width - 10, top: 8, bottom: height - 22 };
    scales.forEach((scale, i) => this.measureAxis(pen, scale, i, box, width < NARROW ? NARROW_AXES : AXES));
    $('plot-scale').hidden = scales.length < 2 && $('plot-scale').value !== 'one';
    const x = value => box.left + (value - x0) / (x1 - x0 || 1) * (box.right - box.left);
    pen.lineWidth = 1;
    for (const value of scales[0].rows) {
      const y = Math.round(scales[0].y(value)) + .5;
      pen.strokeStyle = colour(value === 0 && scales.length === 1 ? '--edge' : '--line');
      pen.beginPath(); pen.moveTo(box.left, y); pen.lineTo(box.right, y); pen.stroke();
    }
    for (const scale of scales) this.paintAxis(pen, scale, box, scales.length > 1, colour);
    const most = Math.max(2, Math.floor((box.right - box.left) / 90)), columns = byTime ? timeTicks(x0, x1, most) : ticks(x0, x1, most);
    pen.textBaseline = 'alphabetic';
    pen.fillStyle = colour('--soft');
    for (const value of columns) {
      const label = byTime ? timeLabel(value, columns.step) : numberLabel(value, columns.step), half = pen.measureText(label).width / 2;
      pen.textAlign = 'center';
      pen.fillText(label, Math.max(half, Math.min(width - half - 2, x(value))), height - 5);
    }
    pen.save();
    pen.beginPath(); pen.rect(box.left - 3, 0, box.right - box.left + 6, box.bottom + 4); pen.clip();
    for (const { y, members } of scales) {
      for (const { series, data } of members) trace(pen, data, byTime, { x, y }, ratio, colour(`--s${series.order % 8}`), series.order >= 8);
    }
    if (this.cursor !== null) this.crosshair(pen, scales, byTime, x, colour);
    pen.restore();
    canvas.setAttribute('aria-label', `Plot of ${lines.map(({ series }) => `${series.name}, now ${figure(series.last)}`).join('; ')}`);
  }

  /* Gives a scale its rows and its place: the first at the left, the others at the right, beside each other; more have no axis. */
  measureAxis(pen, scale, i, box, most) {
    const [y0, y1] = roomy(scale.low, scale.high);
    scale.rows = ticks(y0, y1, Math.max(2, Math.floor((box.bottom - box.top) / 40)));
    scale.labels = scale.rows.map(value => numberLabel(value, scale.rows.step));
    scale.y = value => box.bottom - (value - y0) / (y1 - y0 || 1) * (box.bottom - box.top);
    const room = Math.ceil(Math.max(...scale.labels.map(label => pen.measureText(label).width)));
    scale.side = i === 0 ? 'left' : i < most ? 'right' : '';
    if (scale.side === 'left') box.left = room + 14;
    // What is measured later lies further inside.
    else if (scale.side === 'right') { scale.edge = box.right - room; box.right -= room + 12; }
  }

  paintAxis(pen, { side, edge, rows, labels, y, members }, box, isOneOfMany, colour) {
    if (!side) return;
    pen.textBaseline = 'middle';
    pen.textAlign = side === 'left' ? 'right' : 'left';
    // The colour says whose axis it is, where it is that of one series.
    pen.fillStyle = colour(isOneOfMany && members.length === 1 ? `--s${members[0].series.order % 8}` : '--soft');
    rows.forEach((value, i) => pen.fillText(labels[i], side === 'left' ? box.left - 8 : edge, Math.round(y(value)) + .5));
  }

  /* Marks the points nearest to the cursor; the legend shows their values. */
  crosshair(pen, scales, byTime, x, colour) {
    let nearest = NaN;
    const distance = data => i => Math.abs(x(data[i + byTime]) - this.cursor);
    const picked = scales.flatMap(({ y, members }) => members.map(line => ({ y, ...line }))).map(({ series, data, y }) => {
      const far = distance(data);
      let best = 0;
      for (let i = STRIDE; i < data.length; i += STRIDE) if (far(i) <= far(best)) best = i;
      if (!(Math.abs(x(nearest) - this.cursor) <= far(best))) nearest = data[best + byTime];
      return { series, y, at: data[best + byTime], value: data[best + 5] };
    });
    const at = Math.round(x(nearest)) + .5;
    pen.strokeStyle = colour('--edge');
    pen.beginPath(); pen.moveTo(at, this.box.top); pen.lineTo(at, this.box.bottom); pen.stroke();
    for (const { series, y, at, value } of picked) {
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
    const remark = [this.live && !this.visible.some(series => series.shown) ? 'no series is switched on' : '', this.more ? `only the first ${SERIES} series` : '', this.skipped ? 'a sample: messages arrive faster than the page can draw' : ''].filter(Boolean).join(', ');
    this.remark ??= element('p');
    if (this.remark.textContent !== remark) this.remark.textContent = remark;
    if (remark && !this.remark.isConnected || this.remark.nextSibling) $('legend').append(this.remark);
  }
}

const figure = value => Number.isFinite(value) ? Number(value.toPrecision(6)).toLocaleString('en', { maximumSignificantDigits: 6 }) : '';

/* A scale for lines that know their range. */
const scaleFor = members => ({ members, low: Math.min(...members.map(({ low }) => low)), high: Math.max(...members.map(({ high }) => high)) });

/*
 * The scales of lines: a series joins the first one in which its own movement and that of all others can still be seen, so that a
 * temperature beside a pressure is no flat line. One that is there already may fill less of it, so that it does not jump to and fro.
 */
function scalesOf(lines) {
  const scales = [];
  for (const line of lines) {
    const home = scales.findIndex(({ members }) => fits(scaleFor([...members, line]), members[0].series === line.series.beside ? STAYS : SHARE));
    if (home < 0) scales.push(scaleFor([line])); else scales[home] = scaleFor([...scales[home].members, line]);
    line.series.beside = (scales[home] ?? scales.at(-1)).members[0].series;
  }
  return scales;
}

/* What never moves only must not flatten the others; where nothing moves, sizes decide. */
function fits({ low, high, members }, share) {
  const range = high - low, moving = members.filter(line => line.high > line.low);
  return moving.length ? moving.every(line => line.high - line.low >= range * share) : range <= Math.max(-low, high) / 2;
}

/* A line to draw: a series, its points, and the range of their values. */
function lineOf(series, data) {
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < data.length; i += STRIDE) {
    if (data[i + 3] < low) low = data[i + 3];
    if (data[i + 4] > high) high = data[i + 4];
  }
  return { series, data, low, high };
}

/* A little air above and below; down to zero where zero is near; never a range of nothing. */
function roomy(low, high) {
  if (low === high) return low === 0 ? [-1, 1] : [low - Math.abs(low) / 10, high + Math.abs(high) / 10];
  const air = (high - low) * .06;
  if (low >= 0 && low < (high - low) * .5) return [0, high + air];
  return [low - air, high + air];
}

/* Round values (1, 2 or 5 times a power of ten) from low to high, about `most` of them, more where that would be one; `.step` is their distance. */
function ticks(low, high, most) {
  const rough = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(rough));
  const values = steps(low, high, [1, 2, 5, 10].map(times => times * power).find(step => step >= rough * .999) ?? rough, 0);
  return values.length < 2 && most < 20 ? ticks(low, high, most + 1) : values;
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


