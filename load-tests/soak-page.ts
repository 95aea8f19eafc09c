import type { SoakResult } from './fleet-soak.js';
import { escaped, inScript, pageWith } from './report-page.js';
import { thousands } from './report.js';

/** What was seen over the whole time, a plot each, and what was judged of it. */
export function soakPage({ at, commit, machine, minutes, samplesPerS, samples, verdicts, freshMs, sent, balancedS, peakMb, diskBytesPerSample }: SoakResult): string {
  const plots = [
    { title: 'memory', label: 'without mapped files, MB', values: samples.map(({ memoryMb }) => memoryMb) },
    { title: 'descriptors', label: 'open files', values: samples.map(({ files }) => files) },
    { title: 'ack latency', label: 'p99 of 5 s, ms', values: samples.map(({ ackMs }) => ackMs) },
    { title: 'freshness', label: 'ms', values: samples.map(({ freshMs: ms }) => ms) },
    { title: 'memory and what is mapped of the log', label: 'MB', values: samples.map(({ residentMb }) => residentMb) },
  ];
  return pageWith({
    title: 'soak', style: '.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }',
    body: `<h1>Soak</h1>
<p>${escaped(at)} · commit ${escaped(commit)}<br>${escaped(machine)}. ${minutes} minutes at ${thousands(samplesPerS)} samples/s, the generator on the same cores. Looked at every 5 s; growth is the Theil-Sen slope over the time after the first minutes.</p>
<table><tr><th>What</th><th>Median</th><th>Grew by</th><th>At most</th></tr>
${verdicts.map(({ what, unit, median, growth, growthMax, holds }) => `<tr><td>${escaped(what)}${unit === '' ? '' : `, ${unit}`}</td><td class="n">${median.toFixed(1)}</td><td class="n"><b>${growth.toFixed(1)}</b>${holds ? '' : ' too much'}</td><td class="n">${growthMax.toFixed(1)}</td></tr>`).join('\n')}
</table>
<p>${thousands(sent)} samples were sent, and each is stored once in both stores, ${balancedS.toFixed(1)} s after the last ack. Freshness p50 ${freshMs.p50.toFixed(0)} ms, p99 ${freshMs.p99.toFixed(0)} ms, longest ${freshMs.longest.toFixed(0)} ms.
Peak memory ${thousands(peakMb)} MB, the log's mapped pages included. On disk ${diskBytesPerSample.toFixed(2)} bytes a sample, log and both stores.</p>
<div class="plots">${plots.map((_, index) => `<div id="plot${index}"></div>`).join('')}</div>`,
    script: `const data = ${inScript({ minutes: samples.map(({ atS }) => atS / 60), plots })};
data.plots.forEach(({ title, label, values }, index) => new uPlot({ title, width: 440, height: 300, scales: { x: { time: false }, y: { range: (_, low, high) => [0, high * 1.1] } }, axes: [axis('minutes'), axis(label, { size: 70 })],
  series: [{ label: 'minutes' }, { label, stroke: '#2a7fb8', width: 1, spanGaps: true, points: { show: false } }] }, [data.minutes, values], document.getElementById('plot' + index)));`,
  });
}
