import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Comparison, PeerResult } from './compare.js';
import { thousands } from './report.js';
import type { Spread } from './rounds.js';

export const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
const require = createRequire(import.meta.url);
const asset = (name: string): string => readFileSync(require.resolve(`uplot/dist/${name}`), 'utf8');

const pageStyle = `:root { color-scheme: light dark; --line: #8884; --bar: #2a7fb8; --own: #1a9850; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; } caption { text-align: left; font-weight: 600; padding: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); } td.n { text-align: right; font-variant-numeric: tabular-nums; }
small { display: block; opacity: .7; } .scroll { overflow-x: auto; } .bar { display: block; height: .5rem; background: var(--bar); border-radius: 2px; } tr.own .bar { background: var(--own); }
.u-legend { text-align: left; }`;

/** JSON that may stand in a page's script. */
export const inScript = (value: unknown): string => JSON.stringify(value).replaceAll('<', '\\u003c');

/** One page that needs nothing but itself: `body` is markup, `script` draws with `uPlot`; colour of the text is `ink`, and an axis is made by `axis(label)`. */
export function pageWith({ title, style = '', body, script }: { readonly title: string; readonly style?: string; readonly body: string; readonly script: string }): string {
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>SPaMeR: ${escaped(title)}</title>
<style>${asset('uPlot.min.css')}
${pageStyle}
${style}</style>
${body}
<script>${asset('uPlot.iife.min.js')}</script>
<script>
const ink = getComputedStyle(document.body).color;
const axis = (label, more) => ({ label, stroke: ink, grid: { stroke: '#8883' }, ...more });
${script}
</script></html>
`;
}

const spread = (value: Spread | null, show: (one: number) => string): string => (value === null ? '–' : `<b>${show(value.median)}</b><small>${show(value.min)} … ${show(value.max)}</small>`);
const twoPlaces = (value: number): string => `${(Math.floor(value * 100) / 100).toFixed(2)}×`;

/** Tables, and the plots that a reader looks at first. */
export function pageOf(comparison: Comparison): string {
  const { machine, settings, at, commit, peers, latency, wire } = comparison;
  const ran = peers.filter(({ runs }) => runs.length > 0);
  const fastest = Math.max(...peers.map(({ rate }) => rate?.max ?? 0));
  return pageWith({
    title: 'load report',
    body: `<h1>Load report</h1>
<p>${escaped(at)} · commit ${escaped(commit)}<br>${escaped(machine.cpu)}, ${machine.cores} cores, ${machine.memoryGb} GB, Linux ${escaped(machine.kernel)}, Node ${escaped(machine.node)}.
The program, the generator and the peer share the cores.</p>
<p>The same single-reading frames for everyone: ${thousands(settings.frames)} a run, ${settings.rounds} rounds in which all take turns, each run on an empty folder with its peer started anew.
Figures are medians, with the smallest and the largest below. Ratios are of runs of the same round. Ours counts only after both stores were scanned and held exactly what was sent.</p>
<div class="scroll"><table><caption>Frames answered a second</caption>
<tr><th>What</th><th>Frames/s</th><th>Ours (1 a message) over it</th><th>CPU of its process a frame, µs</th><th>Acked</th><th>Durable</th><th>Encrypted</th><th>Checked</th></tr>
${peers.map((peer, index) => rowOf(peer, index < 2, fastest)).join('\n')}
</table>
<table><caption>${thousands(settings.survivorsOf)} acked frames, then <code>kill -9</code> and a start on the same data: how many are there</caption><tr><th>What</th><th>Frames</th></tr>
${peers.filter(({ survivors }) => survivors !== null).map(({ name, survivors }) => `<tr><td>${escaped(name)}</td><td class="n">${thousands(survivors ?? 0)}</td></tr>`).join('\n')}
</table></div>
<h2>Ack latency</h2>
<p>${thousands(latency.frames)} frames of 250 samples from 100 devices at ${thousands(latency.framesPerS)} frames/s, half of the highest rate of the same run; from when a frame was due to its ack, so that waiting hides nothing.</p>
<div id="latency"></div>
<table><tr>${latency.points.map(({ percentile }) => `<th>p${percentile}</th>`).join('')}</tr><tr>${latency.points.map(({ ms }) => `<td class="n">${ms.toFixed(2)} ms</td>`).join('')}</tr></table>
<h2>Bytes on the wire</h2>
<p>${wire.length === 0 ? 'Not measured: the recordings were not there.' : 'Of one ECG sample of a recording that a device streams: everything that TCP carries both ways, handshake and acks included.'}</p>
<table>${wire.map(({ record, deflate, frameSeconds, bytesPerSample }) => `<tr><td>record ${escaped(record)}, ${frameSeconds} s a frame${deflate ? ', messages compressed' : ''}</td><td class="n">${bytesPerSample.toFixed(3)} bytes a sample</td></tr>`).join('')}</table>
<h2>Memory over time</h2><p>Of the process that takes the frames, resident, mapped files included, in the last round.</p><div id="memory"></div>
<h2>Rounds</h2><div id="rounds"></div>`,
    script: `const data = ${inScript({ latency: latency.points, peers: ran.map(({ name, runs }) => ({ name, rates: runs.map(({ rate }) => rate), memory: runs.at(-1)?.memory ?? [] })) })};
const width = Math.min(1000, document.body.clientWidth - 20);
new uPlot({ width, height: 280, scales: { x: { time: false } }, axes: [axis('percentile', { values: (_, at) => at.map((i) => data.latency[i] ? 'p' + data.latency[i].percentile : '') }), axis('ms')],
  series: [{ label: 'percentile', value: (_, i) => data.latency[i] ? 'p' + data.latency[i].percentile : '' }, { label: 'ms', stroke: '#2a7fb8', width: 2 }] },
  [data.latency.map((_, i) => i), data.latency.map(({ ms }) => ms)], document.getElementById('latency'));
const colours = ['#1a9850', '#66bd63', '#2a7fb8', '#4393c3', '#92c5de', '#b2182b', '#d6604d', '#762a83', '#9970ab', '#e08214', '#888'];
new uPlot({ width, height: 340, scales: { x: { time: false }, y: { distr: 3 } }, axes: [axis('round', { incrs: [1] }), axis('frames/s', { size: 80 })],
  series: [{ label: 'round' }, ...data.peers.map(({ name }, i) => ({ label: name, stroke: colours[i % colours.length], width: 2, points: { show: true } }))] },
  [data.peers[0].rates.map((_, i) => i + 1), ...data.peers.map(({ rates }) => rates)], document.getElementById('rounds'));
const seen = data.peers.filter(({ memory }) => memory.length > 0);
if (seen.length > 0) new uPlot({ width, height: 340, scales: { x: { time: false } }, axes: [axis('seconds'), axis('MB', { size: 80 })],
  series: [{ label: 'seconds' }, ...seen.map(({ name }) => ({ label: name, stroke: colours[data.peers.findIndex((one) => one.name === name) % colours.length], width: 2, spanGaps: true, points: { show: false } }))] },
  uPlot.join(seen.map(({ memory }) => [memory.map(([s]) => s), memory.map(([, mb]) => mb)])), document.getElementById('memory'));`,
  });
}

function rowOf({ name, guarantees, missing, versions, rate, oursOverIt, cpuUs }: PeerResult, own: boolean, fastest: number): string {
  const promises = `<td>${escaped(guarantees.acked)}</td><td>${escaped(guarantees.durable)}</td><td>${escaped(guarantees.encrypted)}</td><td>${escaped(guarantees.checked)}</td>`;
  if (missing !== null) return `<tr><td>${escaped(name)}</td><td colspan="3">not run: ${escaped(missing)}</td>${promises}</tr>`;
  const bar = `<span class="bar" style="width:${((rate?.median ?? 0) / fastest) * 100}%"></span>`;
  return `<tr${own ? ' class="own"' : ''}><td>${escaped(name)}<small>${escaped(versions ?? '')}</small></td><td class="n">${spread(rate, thousands)}${bar}</td><td class="n">${spread(oursOverIt, twoPlaces)}</td><td class="n">${spread(cpuUs, (one) => one.toFixed(1))}</td>${promises}</tr>`;
}
