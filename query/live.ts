import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { deviceId, uuidBytes, uuidText, type DeviceId, type PatientId } from '../core/ids.js';
import { faultOf } from '../core/journal.js';
import { limits } from '../core/limits.js';
import { partitionOf, type StoredRecord } from '../log/log.js';
import { decode } from '../schemas/codec.js';
import type { DecodedFrame } from '../schemas/frames.js';
import { bearerOf, decide } from './access.js';
import { Uuid, readPatient, textAnswer, type Api } from './api.js';
import { openBlock } from './opened.js';
import type { QueryOptions, QueryPorts } from './ports.js';
import { TopicTail } from './tail.js';

/** Bytes that may wait for a slow watcher before it is cut. */
const watcherBytesMax = 4 * 1024 * 1024;
/** Records that may wait to be opened for one watcher. */
const watcherRecordsMax = 256;
const heartbeatMs = 5000;
/** Least time between two looks at the rights of all views: a flood of requests that may end a right costs no more than that. */
const reviewEveryMs = 100;
/** Requests that may end a session, a token or a right: running views are looked at again right after them. */
const mayEndRights = new Set([
  'POST /v1/sign-out', 'POST /v1/password', 'POST /v1/sign-in', 'POST /v1/oidc/sign-in', 'POST /v1/refresh', 'POST /v1/users/:user/state', 'POST /v1/users/:user/password', 'DELETE /v1/tokens/:id',
  'POST /v1/users/:user/second-factor/reset', 'POST /v1/second-factor/confirm', 'POST /v1/services/:service/state', 'POST /v1/services/:service/key',
  'POST /v1/patients/:patient/relations/:relation/end', 'POST /v1/patients/:patient/consents/withdraw',
]);

/** Live frames of one patient as server-sent events: `frame`, `beat`, and `end` with a code when the server ends it. */
export function liveRoutes(api: Api, ports: QueryPorts, options: QueryOptions): void {
  const tail = new TopicTail(ports.log, 'vitals.raw', ports.journal);
  const watchers = new Set<Watcher>();
  let review: NodeJS.Timeout | undefined;
  api.addHook('preClose', async () => {
    clearTimeout(review);
    for (const watcher of watchers) watcher.end('stopping');
  });
  api.addHook('onResponse', async (request) => {
    if (!mayEndRights.has(`${request.method} ${request.routeOptions.url ?? ''}`)) return;
    review ??= setTimeout(() => {
      review = undefined;
      for (const watcher of watchers) void watcher.review();
    }, reviewEveryMs);
  });
  const schema = { tags: ['record'], summary: 'Live waves and numerics of one patient (server-sent events)', params: Type.Object({ patient: Uuid }), response: textAnswer(
    'text/event-stream',
    'Events: `frame` (JSON: device, receivedAt, waves, numerics, events, as in the record, times in microseconds), `beat` every 5 s, and `end` with a code when the server ends the view.',
    'event: beat\ndata: {"devices":1}\n\nevent: end\ndata: {"code":"stopping"}\n\n',
  ) };
  api.get('/v1/patients/:patient/live', { schema, exposeHeadRoute: false }, async (request, reply) => {
    const patient = readPatient(request.params.patient);
    if (watchers.size >= (options.liveWatchersMax ?? limits.liveWatchersMax)) throw new SpamerError('overloaded', 'too many live views are open');
    const watcher = new Watcher(patient, request, ports);
    // Taken before the first await, so that many at once cannot pass the bound together.
    watchers.add(watcher);
    watcher.onEnd(() => watchers.delete(watcher));
    try {
      await watcher.start(tail, reply);
    } catch (error) {
      watcher.end('internal');
      throw error;
    }
  });
}

class Watcher {
  readonly #patient: PatientId;
  readonly #request: FastifyRequest;
  readonly #ports: QueryPorts;
  readonly #waiting: StoredRecord[] = [];
  readonly #endings: Array<() => void> = [];
  #reply: FastifyReply | undefined;
  #opening = false;
  #ended = false;

  constructor(patient: PatientId, request: FastifyRequest, ports: QueryPorts) {
    this.#patient = patient;
    this.#request = request;
    this.#ports = ports;
  }

  onEnd(act: () => void): void {
    this.#endings.push(act);
  }

  async start(tail: TopicTail, reply: FastifyReply): Promise<void> {
    const devices = (await this.#ports.devices.boundTo([this.#patient])).map((row) => row.device);
    if (this.#ended || this.#request.raw.destroyed) return this.end('idle');
    this.#open(reply);
    const partitions = this.#ports.log.topics().find((topic) => topic.name === 'vitals.raw')?.partitions ?? 1;
    for (const text of devices) {
      const device = deviceId(text);
      if (device === null) continue;
      const key = uuidBytes(device);
      this.onEnd(tail.watch(partitionOf(key, partitions), (record) => this.#take(record, key)));
    }
    this.#send('beat', { devices: devices.length });
  }

  #open(reply: FastifyReply): void {
    const headers = reply.getHeaders();
    reply.hijack();
    this.#reply = reply;
    reply.raw.writeHead(200, { ...headers, 'content-type': 'text/event-stream', 'cache-control': 'no-store', connection: 'keep-alive', 'x-accel-buffering': 'no' } as Record<string, string>);
    reply.raw.on('close', () => this.end('idle'));
    const beat = setInterval(() => void this.#beat(), heartbeatMs);
    this.onEnd(() => clearInterval(beat));
  }

  async #beat(): Promise<void> {
    await this.review();
    this.#send('beat', {});
  }

  /** A session that is over, a token or a right that is withdrawn ends a running view too [DENY]. */
  async review(): Promise<void> {
    try {
      const principal = await this.#ports.verifyToken(bearerOf(this.#request) ?? '');
      if (principal === null) return this.end('unauthenticated');
      this.#request.principal = principal;
      if (!(await decide(this.#ports, this.#request, 'watchRecord', 'patient', this.#patient)).allowed) this.end('forbidden');
    } catch (error) {
      this.#ports.journal.warn('a live view ended', { fault: faultOf(error) });
      this.end('internal');
    }
  }

  #take(record: StoredRecord, key: Buffer): void {
    if (this.#ended || !key.equals(record.key)) return;
    if (this.#waiting.length >= watcherRecordsMax) return this.end('overloaded');
    this.#waiting.push(record);
    if (!this.#opening) void this.#drain();
  }

  /** One at a time, so that frames keep their order. */
  async #drain(): Promise<void> {
    this.#opening = true;
    for (let record = this.#waiting.shift(); record !== undefined && !this.#ended; record = this.#waiting.shift()) await this.#show(record);
    this.#opening = false;
  }

  async #show(record: StoredRecord): Promise<void> {
    try {
      const block = decode('Block', record.value);
      // The device may be bound to somebody else by now.
      if (uuidText<PatientId>(block.patient) !== this.#patient) return;
      for (const frame of await openBlock(block, this.#ports.opener)) this.#send('frame', liveFrame(frame, block.receivedAt, uuidText<DeviceId>(block.device)));
    } catch (error) {
      // An unreadable block is the stages' to set aside; an erased patient's view just stays empty.
      const code = error instanceof SpamerError ? error.code : 'block_unreadable';
      this.#ports.journal.warn('a block could not be shown live', { code, offset: record.offset });
    }
  }

  #send(event: string, data: object): void {
    const raw = this.#reply?.raw;
    if (raw === undefined || this.#ended) return;
    if (raw.writableLength > watcherBytesMax) return this.end('overloaded');
    raw.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  end(code: string): void {
    if (this.#ended) return;
    const raw = this.#reply?.raw;
    const slow = (raw?.writableLength ?? 0) > watcherBytesMax;
    if (!slow) this.#send('end', { code });
    this.#ended = true;
    this.#waiting.length = 0;
    for (const act of this.#endings.splice(0)) act();
    // `end` would wait for a reader that does not read.
    if (slow) raw?.destroy();
    else raw?.end();
  }
}

function liveFrame(frame: DecodedFrame, receivedAt: number, device: DeviceId): object {
  const waves = frame.waveforms.map(({ samples, ...wave }) => ({ ...wave, samples: [...samples] }));
  return { device, receivedAt, waves, numerics: frame.numerics, events: frame.events };
}
