import { escaped, inScript, pageWith } from './report-page.js';
import type { Scaling } from './scaling.js';

/** A plot on log-log axes for each growth, and its slope. */
export function scalingPage({ at, commit, machine, growths }: Scaling): string {
  return pageWith({
    title: 'how costs grow', style: '.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }',
    body: `<h1>How costs grow</h1>
<p>${escaped(at)} · commit ${escaped(commit)}<br>${escaped(machine)}. Both axes are logarithmic: a cost that is linear has the slope 1, a flat one 0.</p>
<table><tr><th>With</th><th>Cost</th><th>Slope</th><th>At most</th></tr>
${growths.map(({ what, cost, slope, slopeMax }) => `<tr><td>${escaped(what)}</td><td>${escaped(cost)}</td><td class="n"><b>${slope.toFixed(2)}</b>${slope <= slopeMax ? '' : ' too steep'}</td><td class="n">${slopeMax}</td></tr>`).join('\n')}
</table>
<div class="plots">${growths.map((_, index) => `<div id="plot${index}"></div>`).join('')}</div>`,
    script: `const data = ${inScript(growths)};
const plain = (_, at) => at.map((one) => one === null ? '' : one.toLocaleString('en'));
data.forEach(({ what, along, cost, points }, index) => new uPlot({ title: what, width: 440, height: 300, scales: { x: { time: false, distr: 3 }, y: { distr: 3 } }, axes: [axis(along, { values: plain, size: 70 }), axis(cost, { values: plain, size: 70 })],
  series: [{ label: along }, { label: cost, stroke: '#2a7fb8', width: 2, points: { show: true } }] },
  [points.map(([x]) => x), points.map(([, y]) => y)], document.getElementById('plot' + index)));`,
  });
}
