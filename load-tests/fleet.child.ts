import { readFileSync } from 'node:fs';
import { signDeviceToken, type KeyFile } from '../device-emulator/key.js';
import { decode, messageId } from '../schemas/codec.js';
import { schemaIds } from '../schemas/ids.js';
import type { Asked, Told } from './fleet.js';
import { openRaw, type RawConnection } from './wire.js';

/**
 * A share of the devices of `fleet.ts`, in a process of its own: a process has only so many open files. They connect from an address of
 * their own, since an address has only so many ports, and do what a device does when it is refused: come back after growing, jittered pauses.
 */
const [file = '', first = '', count = '', urls = '', address = ''] = process.argv.slice(2);
/** Each knocks at one of them, always the same, and is sent on from there where another process has its share. */
const doors = urls.split(',');
const devices = (JSON.parse(readFileSync(file, 'utf8')) as KeyFile[]).slice(Number(first), Number(first) + Number(count));
const pauseMs = 1000;
const pauseGrowthMax = 60;
/** At most so many at once: a slow start, and not a storm. */
const openingAtOnce = 128;
const connectsAtOnce = 64;

const held = new Map<number, RawConnection>();
let dropped = 0;
let refusals: Record<string, number> = {};

const tell = (told: Told): void => { process.send?.(told); };
/** What has come in is read. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Until its Hello is there, however often it is refused. Milliseconds of that. */
async function connect(index: number, ready: string | null): Promise<number> {
  const begin = performance.now();
  for (let failures = 0; ; failures++) {
    // A token is good once, so it is signed anew for each try; for a storm the first ones were signed before it.
    const token = failures === 0 && ready !== null ? ready : tokenOf(index);
    try {
      held.set(index, await greeted(token, index));
      return performance.now() - begin;
    } catch (error) {
      const reason = error instanceof Error ? error.message : 'unknown';
      refusals[reason] = (refusals[reason] ?? 0) + 1;
    }
    await wait((0.5 + Math.random() / 2) * pauseMs * Math.min(pauseGrowthMax, 2 ** failures));
  }
}

const tokenOf = (index: number): string => {
  const device = devices[index];
  if (device === undefined) throw new RangeError('there is no such device');
  return signDeviceToken({ device: device.device, privateKey: device.privateKey });
};

async function greeted(token: string, index: number): Promise<RawConnection> {
  const connection = await openRaw(doors[index % doors.length] ?? '', token, undefined, address);
  return new Promise((resolve, reject) => {
    connection.onClose = () => reject(new RangeError('closed before Hello'));
    connection.onMessage = (message) => {
      if (messageId(message) !== schemaIds.Hello) return;
      decode('Hello', message);
      connection.onMessage = () => undefined;
      connection.onClose = () => {
        dropped += 1;
        held.delete(index);
      };
      resolve(connection);
    };
  });
}

/** Those of a part that are not connected, a few at a time. */
async function open(part: number): Promise<void> {
  const left = [...devices.keys()].slice(0, Math.ceil(devices.length * part)).filter((index) => !held.has(index)).values();
  await Promise.all(Array.from({ length: openingAtOnce }, async () => {
    for (const index of left) await connect(index, null);
  }));
  tell({ kind: 'open', held: held.size, refusals, ms: [] });
}

let tokens: string[] = [];

function cut(): void {
  for (const connection of held.values()) {
    connection.onClose = () => undefined;
    connection.socket.resetAndDestroy();
  }
  held.clear();
  refusals = {};
}

async function storm(): Promise<void> {
  cut();
  const coming: Array<Promise<number>> = [];
  for (const index of devices.keys()) {
    coming.push(connect(index, tokens[index] ?? null));
    // Each device is a machine of its own: none waits with its request until ten thousand others have a socket, for which a server would give it up.
    if (index % connectsAtOnce === 0) await turn();
  }
  const ms = await Promise.all(coming);
  tell({ kind: 'back', held: held.size, refusals, ms });
}

process.on('message', (asked: Asked) => {
  if (typeof asked === 'number') void open(asked);
  else if (asked === 'sign') {
    tokens = devices.map((_, index) => tokenOf(index));
    tell({ kind: 'signed' });
  } else if (asked === 'storm') void storm();
  else if (asked === 'look') tell({ kind: 'held', held: held.size, dropped });
});
process.once('disconnect', () => process.exit(0));
tell({ kind: 'ready' });
