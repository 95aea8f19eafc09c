import { asset, escaped, pageStyle } from './report-page.js';
import type { Scaling } from './scaling.js';

/** One page that needs nothing but itself: a plot on log-log axes for each growth, and its slope. */
export function scalingPage({ at, commit, machine, growths }: Scaling): string {
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>SPaMeR: how costs grow</title>
<style>${asset('uPlot.min.css')}
${pageStyle}
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem; }</style>
<h1>How costs grow</h1>
<p>${escaped(at)} · commit ${escaped(commit)}<br>${escaped(machine)}. Both axes are logarithmic: a cost that is linear has the slope 1, a flat one 0.</p>
<table><tr><th>With</th><th>Cost</th><th>Slope</th><th>At most</th></tr>
${growths.map(({ what, cost, slope, slopeMax }) => `<tr><td>${escaped(what)}</td><td>${escaped(cost)}</td><td class="n"><b>${slope.toFixed(2)}</b>${slope <= slopeMax ? '' : ' too steep'}</td><td class="n">${slopeMax}</td></tr>`).join('\n')}
</table>
<div class="plots">${growths.map((_, index) => `<div id="plot${index}"></div>`).join('')}</div>
<script>${asset('uPlot.iife.min.js')}</script>
<script>
const data = ${JSON.stringify(growths).replaceAll('<', '\\u003c')};
const ink = getComputedStyle(document.body).color;
const axis = (label) => ({ label, stroke: ink, grid: { stroke: '#8883' }, values: (_, at) => at.map((one) => one === null ? '' : one.toLocaleString('en')) , size: 70 });
data.forEach(({ what, along, cost, points }, index) => new uPlot({ title: what, width: 440, height: 300, scales: { x: { time: false, distr: 3 }, y: { distr: 3 } }, axes: [axis(along), axis(cost)],
  series: [{ label: along }, { label: cost, stroke: '#2a7fb8', width: 2, points: { show: true } }] },
  [points.map(([x]) => x), points.map(([, y]) => y)], document.getElementById('plot' + index)));
</script></html>
`;
}
