import { readFileSync } from 'node:fs';
import { makeCertificate, withoutOpenssl } from '../tests/certificate.js';
import { sendAll, Start } from './generator.js';
import { waves } from './loads.js';
import { folderOf } from './peers/peer.js';
import { say, thousands, type Row } from './report.js';
import { spreadOf } from './rounds.js';
import { enrol, fresh, settle, tokenOf, type FreshOptions } from './server.js';

const devices = 100;
const samples = 250;

/** Frames of 250 samples over TLS against the same in the clear, in turns; the median of each. */
export async function tls(quick: boolean): Promise<Row[]> {
  if (withoutOpenssl !== false) {
    say(`  skipped: ${withoutOpenssl}`);
    return [];
  }
  const folder = folderOf('tls');
  try {
    const files = makeCertificate(folder.dir, 'bench');
    const authority = readFileSync(files.cert);
    const [off, on]: [number[], number[]] = [[], []];
    for (let round = 0; round < (quick ? 1 : 3); round++) {
      off.push(await rate(quick, {}));
      on.push(await rate(quick, { env: { SPAMER_TLS_CERT_FILE: files.cert, SPAMER_TLS_KEY_FILE: files.key, SPAMER_HTTP_TLS: 'false' } }, authority));
      say(`  TLS off ${thousands(off.at(-1) ?? 0)} frames/s, on ${thousands(on.at(-1) ?? 0)} frames/s`);
    }
    const [clear, sealed] = [spreadOf(off).median, spreadOf(on).median];
    return [{ what: `250-sample frames of ${devices} devices over TLS`, ours: `${thousands(sealed)} frames/s`, peer: `TLS off: ${thousands(clear)} frames/s`, ratio: sealed / clear, needs: 0.6, goal: 0.8 }];
  } finally {
    folder.remove();
  }
}

async function rate(quick: boolean, options: FreshOptions, authority?: Buffer): Promise<number> {
  const run = await fresh(options);
  try {
    const enrolled = await enrol(run.server, devices);
    const load = waves(quick ? 500 : 3000, samples, 1);
    const start = new Start(devices);
    const sending = Promise.all(enrolled.map((device) => sendAll(run.ingest, tokenOf(device), load, { start, windowMax: 32, ...(authority === undefined ? {} : { authority }) })));
    const begin = await start.go;
    const frames = (await sending).reduce((sum, sent) => sum + sent.frames, 0);
    const seconds = (performance.now() - begin) / 1000;
    await settle(run.server, frames * samples);
    return frames / seconds;
  } finally {
    await run.end();
  }
}
