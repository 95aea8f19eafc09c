import type { Socket } from 'node:net';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { FrameBuffer } from './buffer.js';
import { DeviceClient, type ClientCounts, type CommandHandler, type DeviceEventNote } from './client.js';
import { Faults, type FaultOptions } from './faults.js';
import { cutFrames, type CutFrame } from './framer.js';
import type { Jwk } from './key.js';
import type { Source } from './source.js';

export interface DeviceOptions {
  /** `ws://…/v1/stream` */
  readonly url: string;
  /** PEM of the authority of the server's certificate, where it is a private one. */
  readonly ca?: Buffer;
  /** Connects in place of the usual way, and knows the server by itself. */
  readonly connect?: (url: URL) => Promise<Socket>;
  readonly deviceId: string;
  readonly privateKey: Jwk;
  readonly source: Source;
  /** 1 is real time; `max`: as fast as the server acknowledges. */
  readonly speed?: number | 'max';
  readonly frameSeconds?: number;
  /** Time of the source's first moment, µs since the Unix epoch. By default now; faster than real time: so that the source ends now. */
  readonly startUs?: number;
  /** Where frames wait while the server is away; null or absent: in memory. */
  readonly bufferDir?: string | null;
  readonly bufferBytesMax?: number;
  readonly faults?: FaultOptions;
  /** Stops the device; what is not acknowledged stays in its buffer folder. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (note: DeviceEventNote) => void;
  readonly onCommand?: CommandHandler;
  readonly ackTimeoutMs?: number;
  /** Silence after which a waiting device asks whether the server is there. */
  readonly askAfterMs?: number;
  /** Offers permessage-deflate: fewer bytes on the wire for some CPU. */
  readonly deflate?: boolean;
  readonly statusMs?: number;
  readonly backoffMs?: number;
}

export interface DeviceSummary extends ClientCounts {
  readonly frames: number;
  readonly samples: number;
  readonly dropped: number;
  /** Frames that still wait; 0 unless it was stopped. */
  readonly waiting: number;
  readonly startUs: number;
}

/** So long frames are made without a look at the connection, ms: a source that answers at once would fill the whole window before a frame leaves. */
const turnMsMax = 10;

/** How far back an endless source begins when it is to be played faster than time runs. */
const historyS = 3600;

/**
 * Plays a source as a device: resolves when the source has ended and every frame is acknowledged, or on `signal`.
 * @throws SpamerError `unauthenticated`, `replaced`, `disk_full`, and what the source throws.
 */
export async function runDevice(options: DeviceOptions): Promise<DeviceSummary> {
  const stop = new AbortController();
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
  const faults = new Faults(options.faults);
  const startedAtUs = Date.now() * 1000;
  const now = (): number => faults.deviceTime(Date.now() * 1000, startedAtUs);
  const buffer = new FrameBuffer({ folder: options.bufferDir ?? null, ...(options.bufferBytesMax === undefined ? {} : { bytesMax: options.bufferBytesMax }) });
  const { url, ca, connect, deviceId, privateKey, onEvent, onCommand, ackTimeoutMs, askAfterMs, deflate, statusMs, backoffMs } = options;
  const client = new DeviceClient({ url, ca, connect, deviceId, privateKey, buffer, faults, now, startedAtUs, onEvent, onCommand, ackTimeoutMs, askAfterMs, deflate, statusMs, backoffMs });
  const produced = { frames: 0, samples: 0 };
  const startUs = options.startUs ?? startOf(options, startedAtUs);
  const connected = client.run(signal).finally(() => stop.abort());
  // Its failure is told at the end; until then it is not an unhandled one.
  connected.catch(() => undefined);
  try {
    await produce({ options, startUs, startedAtUs, signal, faults, buffer, client, now, produced });
    await client.drained(signal);
  } finally {
    stop.abort();
    await connected.finally(() => buffer.close());
  }
  return { ...client.counts, ...produced, dropped: buffer.dropped, waiting: buffer.frames, startUs };
}

function startOf({ speed = 1, source }: DeviceOptions, nowUs: number): number {
  return speed === 1 ? nowUs : nowUs - Math.ceil(source.durationUs ?? historyS * 1e6);
}

interface Production {
  readonly options: DeviceOptions;
  readonly startUs: number;
  readonly startedAtUs: number;
  readonly signal: AbortSignal;
  readonly faults: Faults;
  readonly buffer: FrameBuffer;
  readonly client: DeviceClient;
  readonly now: () => number;
  readonly produced: { frames: number; samples: number };
}

async function produce({ options, startUs, startedAtUs, signal, faults, buffer, client, now, produced }: Production): Promise<void> {
  const { source, frameSeconds = 1, speed = 1 } = options;
  let turnEnds = performance.now() + turnMsMax;
  for await (const frame of cutFrames({ source, startUs, frameSeconds, deviceTime: (us) => faults.deviceTime(us, Math.max(startUs, startedAtUs)) })) {
    await due(frame, speed, startUs, startedAtUs, signal);
    if (speed === 'max') await client.room(signal);
    if (signal.aborted) return;
    buffer.append(frame.content, Math.floor(now()));
    produced.frames += 1;
    produced.samples += frame.samples;
    client.offer();
    if (performance.now() < turnEnds) continue;
    await nextTurn();
    turnEnds = performance.now() + turnMsMax;
  }
}

/** A frame goes when its last sample was measured, whatever the speed: nothing comes from the future. */
async function due(frame: CutFrame, speed: number | 'max', startUs: number, startedAtUs: number, signal: AbortSignal): Promise<void> {
  const paced = speed === 'max' ? 0 : startedAtUs + (frame.endUs - startUs) / speed;
  const waitMs = (Math.max(paced, frame.endUs) - Date.now() * 1000) / 1000;
  if (waitMs > 0) await sleep(waitMs, undefined, { signal }).catch(() => undefined);
}

/** Many devices in one process. One that fails is told to `onFailure` and costs the others nothing. */
export async function runFleet(devices: readonly DeviceOptions[], onFailure: (deviceId: string, error: unknown) => void): Promise<DeviceSummary[]> {
  const ended = await Promise.all(devices.map((device) => runDevice(device).catch((error: unknown) => {
    onFailure(device.deviceId, error);
    return null;
  })));
  return ended.filter((summary) => summary !== null);
}
