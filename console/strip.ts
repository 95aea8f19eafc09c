import { make, rounded, setText } from './dom.js';
import { joins, Trace, type Run } from './trace.js';

/** Part of the sweep that is empty ahead of the pen. */
const eraseShare = 0.04;

/** One sweeping wave: a sample's place on the fixed time axis comes from its own time, not from its arrival. */
export class Strip {
  readonly element: HTMLElement;
  readonly #canvas: HTMLCanvasElement;
  readonly #pen: CanvasRenderingContext2D;
  readonly #trace: Trace;
  readonly #top: HTMLElement;
  readonly #bottom: HTMLElement;
  readonly #unit: string;
  #sweepUs: number;
  #drawnUs = NaN;
  #redraw = true;
  #low = 0;
  #high = 1;
  #rangeAtMs = -Infinity;
  #colour = '';

  constructor(label: string, unit: string, kind: string, sweepUs: number) {
    this.#sweepUs = sweepUs;
    this.#unit = unit;
    this.#trace = new Trace(sweepUs + 6_000_000);
    this.#canvas = make('canvas', { role: 'img', 'aria-label': `${label}, ${unit}, live wave; its numbers are under “Last minute as JSON”` });
    this.#top = make('span', { class: 'range top' });
    this.#bottom = make('span', { class: 'range bottom' });
    this.element = make('div', { class: `strip ${kind}` }, this.#canvas, make('span', { class: 'name' }, label), this.#top, this.#bottom);
    const pen = this.#canvas.getContext('2d');
    if (pen === null) throw new Error('this browser has no canvas');
    this.#pen = pen;
  }

  add(run: Run): void {
    // What came late is painted into its place; nothing else moves.
    if (this.#trace.add(run) < this.#drawnUs) this.#redraw = true;
  }

  /** Takes the size on screen; called when that may have changed. */
  resize(sweepUs: number): void {
    const ratio = Math.min(2, devicePixelRatio);
    this.#canvas.width = Math.max(1, Math.round(this.element.clientWidth * ratio));
    this.#canvas.height = Math.max(1, Math.round(this.element.clientHeight * ratio));
    this.#sweepUs = sweepUs;
    this.#colour = getComputedStyle(this.element).color;
    this.#redraw = true;
  }

  draw(nowUs: number, nowMs: number): void {
    if (Number.isNaN(nowUs)) return;
    if (nowMs - this.#rangeAtMs > 1000) this.#fitRange(nowMs);
    const jumped = !(nowUs >= this.#drawnUs && nowUs - this.#drawnUs < this.#sweepUs * (1 - eraseShare));
    if (this.#redraw || jumped) this.#paint(nowUs - this.#sweepUs * (1 - eraseShare), nowUs, true);
    else if (nowUs > this.#drawnUs) this.#paint(this.#drawnUs, nowUs, false);
    this.#drawnUs = nowUs;
    this.#redraw = false;
  }

  /** Widens at once, narrows only when a third is unused: the scale must not breathe with the wave. */
  #fitRange(nowMs: number): void {
    this.#rangeAtMs = nowMs;
    const range = this.#trace.range();
    if (range === null) return;
    const [low, high] = range;
    const span = Math.max(high - low, 1e-6);
    if (low >= this.#low && high <= this.#high && span > (this.#high - this.#low) * 0.6) return;
    this.#low = low - span * 0.08;
    this.#high = high + span * 0.08;
    this.#redraw = true;
    setText(this.#top, `${rounded(this.#high)} ${this.#unit}`);
    setText(this.#bottom, `${rounded(this.#low)} ${this.#unit}`);
  }

  #paint(fromUs: number, toUs: number, all: boolean): void {
    const { width, height } = this.#canvas;
    if (all) this.#pen.clearRect(0, 0, width, height);
    else this.#erase(fromUs, toUs, width, height);
    this.#pen.strokeStyle = this.#colour;
    this.#pen.lineWidth = Math.max(1.3, devicePixelRatio * 1.2);
    this.#pen.lineJoin = 'round';
    this.#pen.beginPath();
    let before: Run | undefined;
    for (const run of this.#trace.between(fromUs, toUs)) {
      this.#line(run, fromUs, toUs, before);
      before = run;
    }
    this.#pen.stroke();
  }

  #erase(fromUs: number, toUs: number, width: number, height: number): void {
    const start = this.#x(fromUs, width) + 1;
    const length = ((toUs - fromUs) / this.#sweepUs + eraseShare) * width;
    this.#pen.clearRect(start, 0, Math.min(length, width - start), height);
    if (start + length > width) this.#pen.clearRect(0, 0, start + length - width, height);
  }

  #line(run: Run, fromUs: number, toUs: number, before: Run | undefined): void {
    const { width, height } = this.#canvas;
    // One sample earlier, so that the line goes on where the last paint ended.
    const first = Math.max(0, Math.floor((fromUs - run.t0) / run.periodUs) - 1);
    const last = Math.min(run.values.length - 1, Math.floor((toUs - run.t0) / run.periodUs));
    let x = -1;
    if (first === 0 && before !== undefined && joins(before, run)) x = this.#to(x, before.t0 + (before.values.length - 1) * before.periodUs, before.values.at(-1) ?? NaN, width, height);
    for (let index = first; index <= last; index++) x = this.#to(x, run.t0 + index * run.periodUs, run.values[index] ?? NaN, width, height);
  }

  #to(beforeX: number, us: number, value: number, width: number, height: number): number {
    const x = this.#x(us, width);
    const y = height * (1 - (value - this.#low) / (this.#high - this.#low));
    // Behind the one before: the sweep has begun anew at the left.
    if (beforeX < 0 || x < beforeX) this.#pen.moveTo(x, y);
    else this.#pen.lineTo(x, y);
    return x;
  }

  #x(us: number, width: number): number {
    return ((((us % this.#sweepUs) + this.#sweepUs) % this.#sweepUs) / this.#sweepUs) * width;
  }
}
