// k6 run scenarios.js, started by `npm run load -- SCENARIO`, which gives it a server, devices and their keys by environment.
import http from 'k6/http';
import exec from 'k6/execution';
import { sleep } from 'k6';
import { SharedArray } from 'k6/data';
import { Counter, Trend } from 'k6/metrics';
import { stream } from './device.js';

const { scenario, ingest, api, researcher, seconds, originUs, ackMsMax } = JSON.parse(open(__ENV.RUN));
const devices = new SharedArray('devices', () => JSON.parse(open(__ENV.RUN)).devices);
const queryMs = new Trend('query_ms', true);
const queriesFailed = new Counter('queries_failed');

const once = (vus, name) => ({ executor: 'per-vu-iterations', vus, iterations: 1, maxDuration: `${seconds * 2 + 120}s`, exec: name });
const [count, streaming] = [devices.length, 'acks'];
const queryVus = 8;

export const options = {
  scenarios: scenario === 'query' ? { [streaming]: once(count, 'devices_'), query: once(queryVus, 'query') } : { [streaming]: once(count, 'devices_') },
  thresholds: {
    ack_ms: [`p(99)<${ackMsMax * (scenario === 'slow-readers' || scenario === 'storm' ? 5 : 1)}`],
    frames_lost: ['count==0'], connections_failed: ['count==0'], connections_ungreeted: [`count<=${Math.max(1, Math.floor(count / 1000))}`], acks_out_of_order: ['count==0'], frames_refused: ['count==0'],
    ...(scenario === 'slow-readers' ? {} : { closed_by_server: ['count==0'] }),
    ...(scenario === 'query' ? { query_ms: [`p(95)<${2 * ackMsMax}`], queries_failed: ['count==0'] } : {}),
  },
  summaryTrendStats: ['min', 'med', 'p(95)', 'p(99)', 'max', 'count'],
};

const ecg = Array.from({ length: 250 }, (_, at) => Math.round(300 * Math.exp(-(((at % 200) - 100) ** 2) / 30) + 40 * Math.sin(at / 9)));
const half = (values) => values.filter((_, at) => at % 2 === 0);

/** When the second of frame `seq` begins: seconds follow each other, however fast they are sent, since samples that overlap would be refused. */
const timeOf = (seq) => originUs + (seq - 1) * 1e6;
/** A second of ECG. */
const wave = (seq) => ({ waveforms: [{ code: 131330, unit: 266418, t0: timeOf(seq), periodNs: 4e6, scale: 0.005, offset: 0, samples: ecg }] });
/** A bedside monitor's second: three waves, and a heart rate. */
const bedside = (seq) => ({
  waveforms: [
    ...wave(seq).waveforms,
    { code: 150452, unit: 262656, t0: timeOf(seq), periodNs: 8e6, scale: 0.001, offset: 0, samples: half(ecg) },
    { code: 151552, unit: 262656, t0: timeOf(seq), periodNs: 8e6, scale: 0.001, offset: 0, samples: half(ecg) },
  ],
  ...pulse(seq),
});
/** A wearable's reading. */
const pulse = (seq) => ({ numerics: [{ code: 147842, unit: 264864, time: timeOf(seq), value: 60 + (seq % 40) }] });

const samplesOf = ({ waveforms = [], numerics = [] }) => waveforms.reduce((sum, { samples }) => sum + samples.length, numerics.length);

/** What device number `at` of `count` does; times in ms. */
const plans = {
  steady: () => [{ frame: bedside, perS: 1, afterMs: 0, forMs: seconds * 1000 }],
  soak: () => [{ frame: bedside, perS: 1, afterMs: 0, forMs: seconds * 1000 }],
  ramp: (at) => [{ frame: bedside, perS: 1, afterMs: (at / count) * seconds * 500, forMs: seconds * 1000 - (at / count) * seconds * 500 }],
  spike: (at) => (at < count / 5 ? [{ frame: bedside, perS: 1, afterMs: 0, forMs: seconds * 1000 }] : [{ frame: wave, perS: 10, afterMs: seconds * 333, forMs: seconds * 333 }]),
  // All at once away and back, again and again; what was not acked is sent anew by its seq.
  storm: () => Array.from({ length: Math.max(3, Math.floor(seconds / 4)) }, (_, turn, all = Math.max(3, Math.floor(seconds / 4))) => ({ frame: wave, perS: 5, afterMs: 0, forMs: 2000, abrupt: turn < all - 1 })),
  'slow-readers': (at) => [{ frame: wave, perS: at % 2 === 0 ? 1 : 50, afterMs: 0, forMs: seconds * 1000, slow: at % 2 === 1 }],
  mixed: (at) => [
    { frame: bedside, perS: 1, afterMs: 0, forMs: seconds * 1000 },
    { frame: pulse, perS: 1, afterMs: 0, forMs: seconds * 1000 },
    // One that was away, and hands in what it kept.
    { frame: wave, perS: 50, afterMs: seconds * 300, forMs: seconds * 300 },
  ].slice(at % 3, (at % 3) + 1),
  query: () => [{ frame: bedside, perS: 1, afterMs: 0, forMs: seconds * 1000 }],
};

export async function devices_() {
  const at = exec.scenario.iterationInTest;
  for (const { frame, perS, afterMs, forMs, abrupt, slow } of plans[scenario](at)) {
    sleep(afterMs / 1000);
    // A reader that takes nothing for a while holds its socket up, and the server's bounded buffer with it.
    const onAnswer = slow === true ? () => sleep(0.5) : undefined;
    await stream({ url: ingest, device: devices[at], frame, perS, endMs: forMs, samplesOf, abrupt, onAnswer });
  }
}

const asked = ['/v1/studies', '/v1/studies/load/signals', '/v1/studies/load/numerics?limit=500', '/v1/studies/load/aggregates', '/v1/studies/load/runs?limit=20'];

export function query() {
  const headers = { Authorization: `Bearer ${researcher}` };
  const end = Date.now() + seconds * 1000;
  for (let turn = 0; Date.now() < end; turn++) {
    const answer = http.get(api + asked[turn % asked.length], { headers, tags: { name: asked[turn % asked.length] } });
    queryMs.add(answer.timings.duration);
    if (answer.status !== 200) queriesFailed.add(1);
    sleep(0.05);
  }
}

export const handleSummary = ({ metrics }) => ({ [__ENV.OUT]: JSON.stringify(metrics) });
