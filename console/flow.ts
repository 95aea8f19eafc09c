import type uPlotClass from 'uplot';
import { count, make, part, rounded, setText } from './dom.js';
import { tableOf } from './ledger.js';
import type { Status } from './wire.js';

declare const uPlot: typeof uPlotClass;

const keepPoints = 300;
const laggingRecords = 1000;
const staleFreshnessMs = 3000;

interface Point {
  readonly timeS: number;
  readonly samplesPerS: number;
  readonly framesPerS: number;
}

/** How much flows, how far behind each stage is, and the last minutes as a chart and a table. */
export class Flow {
  readonly #points: Point[] = [];
  readonly #tiles = new Map<string, { readonly box: HTMLElement; readonly value: HTMLElement }>();
  #before: { readonly timeMs: number; readonly samples: number; readonly frames: number } | undefined;
  #chart: uPlotClass | undefined;

  constructor() {
    // In their place from the start, so that nothing moves when the second count makes a rate of the first.
    for (const label of ['Samples per second', 'Frames per second', 'Devices connected', 'Queryable after']) this.#tile(label, '–', false);
    part<HTMLDetailsElement>('flow-history').addEventListener('toggle', () => this.#drawHistory());
    new ResizeObserver(() => this.#chart?.setSize({ width: Math.max(280, part('flow-chart').clientWidth), height: 180 })).observe(part('flow-chart'));
  }

  show(status: Status): void {
    const timeMs = Date.parse(status.time);
    const before = this.#before;
    this.#before = { timeMs, samples: status.samples, frames: status.frames };
    // Counters begin anew with the server's process.
    if (before !== undefined && timeMs > before.timeMs && status.samples >= before.samples) this.#rate(status, before, timeMs);
    this.#tile('Devices connected', count(status.connections), false);
    const fresh = status.freshnessMs;
    this.#tile('Queryable after', fresh === null ? 'nothing yet' : `${rounded(fresh / 1000)} s`, (fresh ?? 0) > staleFreshnessMs);
    for (const { stage, records } of status.lag) this.#tile(`Lag of ${stage}, records`, count(records), records > laggingRecords);
    this.#drawHistory();
  }

  #rate(status: Status, before: { readonly timeMs: number; readonly samples: number; readonly frames: number }, timeMs: number): void {
    const seconds = (timeMs - before.timeMs) / 1000;
    const point = { timeS: timeMs / 1000, samplesPerS: (status.samples - before.samples) / seconds, framesPerS: (status.frames - before.frames) / seconds };
    this.#points.push(point);
    if (this.#points.length > keepPoints) this.#points.shift();
    // A mean of three seconds: a device that sends once a second should not make the number flicker.
    const last = this.#points.slice(-3);
    const mean = (of: (each: Point) => number): number => last.reduce((sum, each) => sum + of(each), 0) / last.length;
    this.#tile('Samples per second', `${count(mean((each) => each.samplesPerS))} /s`, false);
    this.#tile('Frames per second', `${count(mean((each) => each.framesPerS))} /s`, false);
  }

  #tile(label: string, text: string, warn: boolean): void {
    let tile = this.#tiles.get(label);
    if (tile === undefined) {
      const value = make('dd', {});
      tile = { box: make('div', {}, make('dt', {}, label), value), value };
      this.#tiles.set(label, tile);
      part('tiles').append(tile.box);
    }
    tile.box.classList.toggle('warn', warn);
    setText(tile.value, warn ? `⚠ ${text}` : text);
  }

  #drawHistory(): void {
    if (!part<HTMLDetailsElement>('flow-history').open || this.#points.length < 2) return;
    const data: uPlotClass.AlignedData = [this.#points.map((point) => point.timeS), this.#points.map((point) => point.samplesPerS)];
    if (this.#chart === undefined) this.#chart = new uPlot(chartOptions(), data, part('flow-chart'));
    else this.#chart.setData(data);
    const rows = this.#points.slice(-30).reverse().map((point) => [new Date(point.timeS * 1000).toLocaleTimeString(), count(point.samplesPerS), count(point.framesPerS)]);
    part('flow-table').replaceChildren(tableOf(['Time', 'Samples per second', 'Frames per second'], rows));
  }
}

function chartOptions(): uPlotClass.Options {
  const style = getComputedStyle(document.documentElement);
  const axis = { stroke: style.getPropertyValue('--quiet'), grid: { stroke: style.getPropertyValue('--line'), width: 1 } };
  return {
    width: Math.max(280, part('flow-chart').clientWidth),
    height: 180,
    series: [{}, { label: 'Samples per second', stroke: style.getPropertyValue('--accent'), width: 2 }],
    axes: [axis, { ...axis, size: 70 }],
    scales: { y: { range: (_chart, _low, high) => [0, Math.max(1, high * 1.1)] } },
  };
}
