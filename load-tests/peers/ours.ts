import { readFileSync } from 'node:fs';
import { sendAll } from '../generator.js';
import { readings } from '../loads.js';
import { enrol, fresh, settle, tokenOf, type Device } from '../server.js';
import { ownPackage, survivorsOf, type Peer, type RunningPeer } from './peer.js';

/** This program, started as a user starts it, every setting at its default; a speed is told only after both stores were counted. */
export function ours(framesPerMessage: number): Peer {
  return {
    name: `SPaMeR, ${framesPerMessage} frame${framesPerMessage === 1 ? '' : 's'} a message`,
    guarantees: { acked: 'when it is flushed to disk', durable: 'yes', encrypted: 'at rest, under the key of the patient', checked: 'device token, schema, duplicates; then range, time, study policy' },
    missing: () => null,
    versions: () => `spamer ${(JSON.parse(readFileSync(ownPackage, 'utf8')) as { version: string }).version}`,
    start: () => start(framesPerMessage),
  };
}

async function start(framesPerMessage: number): Promise<RunningPeer> {
  let run = await fresh();
  let sent = 0;
  const feed = async (count: number): Promise<number> => {
    // A device of its own for each round: seqs that were sent before would be recognised and not stored again.
    const [device] = await enrol(run.server, 1);
    const { frames, seconds } = await sendAll(run.ingest, tokenOf(device as Device), readings(count, framesPerMessage));
    sent += frames;
    return seconds;
  };
  return {
    pid: run.pid,
    feed: async (count) => {
      const seconds = await feed(count);
      await settle(run.server, sent);
      return seconds;
    },
    survivors: async () => {
      await feed(survivorsOf);
      run = await run.again();
      await settle(run.server, sent);
      return sent;
    },
    end: () => run.end(),
  };
}
