import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chromium, flags, playwright, type Browser, type Page } from './browser.js';
import { demanded, freePort, type Started, startProgram, temporaryFolder, until } from './program.js';

const transferMaxBytes = 300_000;

/** What a page did wrong. While the server is down, failed requests are what must happen; nothing else is excused. */
class Watch {
  readonly errors: string[] = [];
  readonly hosts = new Set<string>();
  bytes = 0;
  serverMayBeGone = false;

  async on(page: Page): Promise<void> {
    page.on('pageerror', (error) => this.errors.push(`pageerror: ${error.message}`));
    page.on('console', (message) => {
      const excused = this.serverMayBeGone && message.text().startsWith('Failed to load resource');
      if (message.type() === 'error' && !excused) this.errors.push(`console: ${message.text()}`);
    });
    page.on('request', (request) => { if (/^(https?|wss?):/.test(request.url())) this.hosts.add(new URL(request.url()).host); });
    const cdp = await page.context().newCDPSession(page);
    cdp.on('Network.loadingFinished', ({ encodedDataLength }) => { this.bytes += encodedDataLength; });
    await cdp.send('Network.enable');
  }
}

/** Painted pixels of the first strip, and a sum that changes with their places. */
const stripNow = `(() => {
  const canvas = document.querySelector('.strip canvas');
  if (canvas === null || canvas.width < 2) return { painted: 0, sum: 0 };
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let painted = 0, sum = 0;
  for (let at = 3; at < data.length; at += 4) if (data[at] > 0) { painted += 1; sum = (sum * 31 + at) % 1000000007; }
  return { painted, sum };
})()`;

async function wavesMove(page: Page): Promise<void> {
  const strip = () => page.evaluate<{ painted: number; sum: number }>(stripNow);
  await until('a painted strip', async () => (await strip()).painted > 200);
  let before = await strip();
  // Three changes in a row: a strip painted once more, as it stood, is no moving wave.
  for (let change = 1; change <= 3; change++) {
    await until(`change ${change} of the wave`, async () => (await strip()).sum !== before.sum, 5000);
    before = await strip();
    assert.ok(before.painted > 50, 'the strip went blank');
  }
}

async function ledgerAddsUp(page: Page): Promise<void> {
  const read = () => page.evaluate<{ texts: string[]; sum: string }>(`({ texts: [...document.querySelectorAll('#ledger-line strong')].map((each) => each.textContent), sum: document.querySelector('#ledger-line .sum').textContent })`);
  const numbers = (texts: readonly string[]): number[] => texts.map((text) => (/\d/.test(text) ? Number(text.replace(/\D/g, '')) : NaN));
  await until('samples in the ledger', async () => (numbers((await read()).texts)[0] ?? 0) > 0);
  const { texts, sum } = await read();
  const [accepted, stored = NaN, rejected = NaN, held = NaN, erased = NaN, inFlight = NaN] = numbers(texts);
  assert.equal(stored + rejected + held + erased + inFlight, accepted, `the line reads ${texts.join(' | ')}`);
  assert.match(sum, /^✓ adds up/);
}

async function tabReachesTheControls(page: Page): Promise<void> {
  const reached = new Set<string>();
  for (let press = 0; press < 25; press++) {
    await page.keyboard.press('Tab');
    const at = await page.evaluate<{ name: string; outline: string }>(`(() => { const at = document.activeElement; const style = getComputedStyle(at); return { name: at.id || at.closest('[id]')?.id || at.tagName, outline: at === document.body ? 'page' : style.outlineStyle + ' ' + parseFloat(style.outlineWidth) }; })()`);
    assert.ok(at.outline === 'page' || !/^none|^\w+ 0$/.test(at.outline), `focus on ${at.name} cannot be seen: ${at.outline}`);
    reached.add(at.name);
  }
  for (const wanted of ['ledger-line', 'patient', 'download', 'device-filter', 'device-table']) assert.ok(reached.has(wanted), `Tab did not reach ${wanted}; it reached ${[...reached].join(', ')}`);
}

async function fitsAndFollowsTheScheme(page: Page): Promise<void> {
  const ground = () => page.evaluate<string>('getComputedStyle(document.body).backgroundColor');
  await page.emulateMedia({ colorScheme: 'dark' });
  const dark = await ground();
  await page.emulateMedia({ colorScheme: 'light' });
  assert.notEqual(await ground(), dark, 'dark and light look the same');
  await page.setViewportSize({ width: 360, height: 740 });
  const [content, width] = await page.evaluate<[number, number]>('[document.documentElement.scrollWidth, document.documentElement.clientWidth]');
  assert.ok(content <= width, `at 360 px the page is ${content} px wide in ${width}`);
  const patientAt = await page.evaluate<number>('document.querySelector("#device-table tbody td:nth-child(2)").getBoundingClientRect().left');
  assert.ok(patientAt < width / 2, `at 360 px a device's patient begins ${patientAt} px from the left: its id has the room`);
}

test('the page shows waves and a ledger that adds up, says when the server is gone, and goes on when it is back', { timeout: 90_000 }, async (t) => {
  const tool = playwright();
  if (typeof tool === 'string') {
    assert.ok(!demanded('browser'), tool);
    t.skip(tool);
    return;
  }
  const folder = temporaryFolder('page');
  const [httpPort, ingestPort] = [await freePort(), await freePort()];
  const start = (): Promise<Started> => startProgram(folder.dir, { command: 'demo', httpPort, ingestPort });
  let started: Started | undefined;
  let browser: Browser | undefined;
  try {
    started = await start();
    browser = await tool.chromium.launch({ executablePath: chromium, args: flags });
    const page = await browser.newPage({ viewport: { width: 1440, height: 900 }, colorScheme: 'dark' });
    const watch = new Watch();
    await watch.on(page);
    await page.goto(started.http);
    await wavesMove(page);
    const bytes = watch.bytes;
    await ledgerAddsUp(page);
    t.diagnostic(`first paint ${await page.evaluate<number>(`Math.round(performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN)`)} ms, ${bytes} bytes`);
    assert.ok(bytes > 1000 && bytes < transferMaxBytes, `${bytes} bytes transferred`);
    await tabReachesTheControls(page);

    watch.serverMayBeGone = true;
    await started.stop();
    const notice = `(() => { const notice = document.getElementById('notice'); return notice.hidden ? '' : notice.textContent; })()`;
    await until('the notice that the server is gone', async () => (await page.evaluate<string>(notice)).startsWith('The server is gone.'), 15_000);
    const live = `document.getElementById('live-state').textContent`;
    await until('waves that are not called live any more', async () => /^last frame .*reconnecting$/.test(await page.evaluate<string>(live)), 10_000);
    const colours = await page.evaluate<string[]>(`['.on-mark', '#ledger-line strong', '#connection'].map((part) => getComputedStyle(document.querySelector(part)).color)`);
    assert.equal(new Set(colours).size, 1, `what is below does not look as if it were of now: ${colours.join(', ')}`);
    started = await start();
    await until('a page connected again', async () => (await page.evaluate<string>(`document.getElementById('connection').textContent`)) === 'connected');
    await until('live waves again', async () => (await page.evaluate<string>(`document.getElementById('live-state').textContent`)) === 'live', 20_000);
    watch.serverMayBeGone = false;
    await wavesMove(page);
    await ledgerAddsUp(page);

    await fitsAndFollowsTheScheme(page);
    assert.deepEqual([...watch.hosts], [new URL(started.http).host], 'the page asked another host');
    assert.deepEqual(watch.errors, []);
  } finally {
    await browser?.close();
    await started?.stop();
    folder.remove();
  }
});
