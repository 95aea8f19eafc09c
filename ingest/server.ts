import uws from 'uWebSockets.js';
import type { HttpRequest, HttpResponse, TemplatedApp, us_socket_context_t } from 'uWebSockets.js';
import { systemClock, type Clock } from '../core/clock.js';
import { SpamerError, toSpamerError, type ErrorCode } from '../core/errors.js';
import { uuidBytes, type DeviceId } from '../core/ids.js';
import { faultOf, type Journal } from '../core/journal.js';
import { limits as coreLimits } from '../core/limits.js';
import { ownBytes } from '../core/own-bytes.js';
import { partitionOf, shareOf, type Writer } from '../log/log.js';
import { encode } from '../schemas/codec.js';
import { Commands, type CommandAnswer } from './commands.js';
import type { Binding, DeviceDirectory, DeviceEntry, SealFor } from './bindings.js';
import { closeCodes, Connection } from './connection.js';
import { Counters } from './counters.js';
import { bearerToken, type DoorBook, type TokenVerifier } from './handshake.js';
import { Lanes, type Lane } from './lanes.js';
import { Listener, type ListenerSettings } from './listener.js';
import { Lobby } from './lobby.js';
import type { DeviceState } from './mark.js';
import { Rate } from './rate.js';
import { Receiver } from './receive.js';
import { UpgradeCork } from './upgrade-cork.js';
import { Session, Sessions } from './sessions.js';
import { Turns } from './turns.js';

export const protocolName = 'spamer.v1';
export const streamPath = '/v1/stream';

type IngestLimits = { readonly [K in keyof typeof coreLimits]: number };

export interface IngestSettings extends ListenerSettings {
  readonly topic: string;
  readonly partitions: number;
  /** Into how many the partitions are shared out among the processes that take frames. */
  readonly shares: number;
  /** Per device. */
  readonly framesPerS: number;
  readonly bytesPerS: number;
  readonly coalesceMs: number;
  readonly retryAfterMs: number;
  /** Hint in Hello. */
  readonly batchMs: number;
  readonly malformedMax: number;
  /** Device sockets of any kind: what the operating system lets the process open, less what the rest of it needs. */
  readonly socketsMax: number;
  readonly limits: IngestLimits;
}

export const ingestDefaults: IngestSettings = {
  host: '127.0.0.1',
  port: 9090,
  tls: null,
  topic: 'vitals.raw',
  partitions: 4,
  shares: 1,
  framesPerS: 2_000_000,
  bytesPerS: 256 * 1024 * 1024,
  coalesceMs: 2,
  retryAfterMs: 1000,
  batchMs: 250,
  malformedMax: 16,
  socketsMax: Infinity,
  limits: coreLimits,
};

export interface IngestParts {
  /** Of the shares that this process has from the start; more come and go by `take` and `release`. */
  readonly writers: ReadonlyMap<number, Writer>;
  /** Where devices of a share are let in that this process has not; null: nobody knows. */
  readonly elsewhere?: (share: number) => string | null;
  readonly devices: DeviceDirectory;
  readonly tokens: TokenVerifier;
  readonly book: DoorBook;
  readonly sealFor: SealFor;
  readonly journal: Journal;
  readonly settings: IngestSettings;
  readonly clock?: Clock;
}

export interface ConnectedDevice {
  readonly device: DeviceId;
  readonly connectedSinceUs: number;
  readonly lastFrameAtUs: number | null;
  readonly epoch: number;
  /** Highest durable seq. */
  readonly seq: number;
  /** 0 to 100; -1 on mains; null: not told. */
  readonly batteryPercent: number | null;
  readonly bufferedFrames: number | null;
}

/** uWebSockets copies the fields of its user data into an object of its own, so these are never changed. */
interface SocketData {
  readonly session: Session;
  readonly connection: Connection;
}

/** The device is let in by another process. */
class Elsewhere extends Error {
  readonly url: string;

  constructor(url: string) {
    super('elsewhere');
    this.url = url;
  }
}

/** Questions to the registry at once. */
const renewedAtOnce = 64;
const expireEveryMs = 60_000;
const farewellMs = 50;

/** The devices' door: handshake, sockets, start and stop. What messages do is in `receive.ts`. */
export class IngestServer {
  readonly name = 'ingest';
  readonly counters = new Counters();
  readonly #parts: IngestParts;
  readonly #clock: Clock;
  readonly #cork: UpgradeCork;
  readonly #sessions: Sessions;
  readonly #lanes: Lanes;
  readonly #commands = new Commands();
  readonly #receiver: Receiver;
  readonly #lobby: Lobby;
  readonly #turns: Turns;
  #listener: Listener | null = null;
  #expiry: NodeJS.Timeout | null = null;
  #stopping: Promise<void> | null = null;

  /** Listens when the promise resolves. @throws SpamerError `port_taken`, `config_invalid` (certificate), and what the writer throws. */
  static async start(parts: IngestParts): Promise<IngestServer> {
    const server = new IngestServer(parts, await UpgradeCork.open());
    try {
      await server.#open();
    } catch (error) {
      server.#cork.close();
      throw error;
    }
    return server;
  }

  private constructor(parts: IngestParts, cork: UpgradeCork) {
    const { settings } = parts;
    const { counters } = this;
    this.#parts = parts;
    this.#cork = cork;
    this.#sessions = new Sessions((device) => this.#loadSession(device));
    this.#lanes = new Lanes({
      topic: settings.topic,
      shares: settings.shares,
      clock: parts.clock,
      counters,
      journal: parts.journal,
      coalesceMs: settings.coalesceMs,
      onDurable: (session, state) => this.#durable(session, state),
      onFailed: (session, code) => this.#failed(session, code),
    });
    this.#clock = this.#lanes.clock;
    this.#receiver = new Receiver({ ...settings, clock: parts.clock ?? systemClock, counters, commit: this.#lanes, commands: this.#commands });
    this.#turns = new Turns(settings.limits.handshakesMax, settings.limits.handshakesWaitingMax);
    this.#lobby = new Lobby({ halfOpenMax: settings.limits.halfOpenMax, socketsMax: settings.socketsMax }, counters);
  }

  get port(): number {
    return this.#listener?.port ?? 0;
  }

  get url(): string {
    const { host, tls } = this.#parts.settings;
    return `${tls === null ? 'ws' : 'wss'}://${host.includes(':') ? `[${host}]` : host}:${this.port}${streamPath}`;
  }

  /** Why the log takes no frames at present, or null. */
  get failing(): ErrorCode | null {
    return this.#lanes.failing;
  }

  connected(): readonly ConnectedDevice[] {
    const devices: ConnectedDevice[] = [];
    for (const session of this.#sessions.all()) {
      const { connection, durable, status } = session;
      if (connection === null) continue;
      devices.push({
        device: session.device,
        connectedSinceUs: connection.connectedAtUs,
        lastFrameAtUs: session.lastFrameAtUs,
        epoch: durable.epoch,
        seq: durable.seq,
        batteryPercent: status?.batteryPercent ?? null,
        bufferedFrames: status?.bufferedFrames ?? null,
      });
    }
    return devices;
  }

  /** Resolves with the device's answer, or code `expired`. @throws SpamerError `unreachable` when it is not connected. */
  sendCommand(device: DeviceId, name: string, args: Record<string, string>, timeoutMs: number): Promise<CommandAnswer> {
    return this.#commands.send(this.#sessions.get(device), this.#clock.now(), name, args, timeoutMs);
  }

  /** From here on the devices of this share are let in here, by its writer, which stays with who opened it. */
  async take(share: number, writer: Writer): Promise<void> {
    await this.#lanes.take(share, writer);
  }

  /** What was taken of this share is flushed and acked, and its devices are told to connect again: another process has it from then on. */
  async release(share: number): Promise<void> {
    const of = (): Session[] => [...this.#sessions.all()].filter(({ lane }) => lane.share === share);
    for (const session of of()) session.moving = true;
    await this.#lanes.release(share);
    for (const session of of()) {
      session.connection?.close(closeCodes.stopping, 'stopping');
      this.#sessions.forget(session);
    }
  }

  /** As `refresh`, of all who are connected: after a time in which changes could not be told. */
  async refreshAll(): Promise<void> {
    const sessions = [...this.#sessions.all()];
    for (let from = 0; from < sessions.length; from += renewedAtOnce) await Promise.all(sessions.slice(from, from + renewedAtOnce).map((session) => this.#renew(session)));
  }

  /** Closes every connection; whoever comes is let in, or not, as the registry says then. */
  sendAway(): void {
    for (const session of [...this.#sessions.all()]) session.connection?.close(closeCodes.stopping, 'stopping');
  }

  /** To be called when the registry changed a device's state or bindings, or the key of one of its patients. */
  async refresh(device: DeviceId): Promise<void> {
    const session = this.#sessions.get(device);
    if (session !== undefined) await this.#renew(session);
  }

  /**
   * Connections from now on get the certificate that the files hold now; open ones go on. Nothing to do without TLS.
   * @throws SpamerError `config_invalid` when they hold none; then the old one stays.
   */
  renewCertificate(): void {
    if (this.#stopping === null && this.#parts.settings.tls !== null) this.#listener?.renew();
  }

  async #renew(session: Session): Promise<void> {
    const turn = ++session.renewals;
    const entry = await this.#parts.devices.deviceEntry(session.device);
    // One that began later has read what is newer.
    if (turn !== session.renewals) return;
    session.barred = entry?.state !== 'active';
    if (session.barred) session.connection?.close(closeCodes.forbidden, 'forbidden');
    const bindings = entry === null ? [] : await this.#bindings(entry);
    if (turn === session.renewals) session.bindings = bindings;
  }

  /** No new frames; what was taken is flushed and acked; then every connection is closed with 1001. */
  stop(): Promise<void> {
    this.#stopping ??= this.#drain();
    return this.#stopping;
  }

  async #open(): Promise<void> {
    for (const [share, writer] of this.#parts.writers) await this.#lanes.take(share, writer);
    this.#listener = await Listener.open(this.#parts.settings, (app) => this.#route(app));
    this.#expiry = setInterval(() => this.#lanes.expire(), expireEveryMs).unref();
  }

  #route(app: TemplatedApp): void {
    const { limits } = this.#parts.settings;
    this.#lobby.watch(app);
    app.ws<SocketData>(streamPath, {
      // For devices that offer permessage-deflate, each message alone, so that no connection keeps a window; to the limit below it counts inflated. Answers go as they are.
      compression: uws.SHARED_DECOMPRESSOR,
      maxPayloadLength: limits.messageBytesMax,
      maxBackpressure: limits.socketBackpressureBytesMax,
      // Typed as a number, read as a boolean.
      closeOnBackpressureLimit: 1,
      idleTimeout: limits.idleTimeoutS,
      sendPingsAutomatically: true,
      upgrade: (res, req, context) => this.#upgrade(res, req, context),
      open: (socket) => {
        const { session, connection } = socket.getUserData();
        this.#lobby.upgraded();
        connection.opened(socket);
        this.#greet(session, connection);
      },
      message: (socket, message, isBinary) => {
        const { session, connection } = socket.getUserData();
        this.#receiver.message(session, connection, Buffer.from(message), isBinary);
      },
      close: (socket) => {
        const { session, connection } = socket.getUserData();
        this.#closed(session, connection);
      },
    });
    app.any('/*', (res) => {
      res.writeStatus('404 Not Found').end(undefined, true);
    });
  }

  /** Reads the request now, it is gone after the first await; answers later. */
  #upgrade(res: HttpResponse, req: HttpRequest, context: us_socket_context_t): void {
    let aborted = false;
    res.onAborted(() => (aborted = true));
    const authorization = req.getHeader('authorization');
    const key = req.getHeader('sec-websocket-key');
    const offered = req.getHeader('sec-websocket-protocol').split(',').some((name) => name.trim() === protocolName);
    const extensions = req.getHeader('sec-websocket-extensions');

    const refuse = (code: ErrorCode): void => {
      this.counters.handshakesRefused += 1;
      this.#parts.book.refused(code);
      if (!aborted) res.cork(() => res.writeStatus(statusLines[code] ?? '500 Internal Server Error').end(undefined, true));
    };
    const full = this.#turns.full ? 'overloaded' : this.#full();
    if (full !== null) return refuse(full);
    if (!offered) return refuse('bad_request');

    this.counters.handshakes += 1;
    this.#turns
      .enter()
      .then(() => {
        // Who gave up while waiting costs nothing.
        if (aborted) throw new SpamerError('unreachable', 'the device went away');
        return this.#admit(authorization);
      })
      .then(
        (session) => {
          const late = aborted ? 'unreachable' : session.moving ? 'stopping' : this.#full();
          if (late !== null) {
            this.#sessions.release(session);
            return refuse(late);
          }
          const connection = new Connection(this.#clock.now(), this.counters);
          this.#cork.run(() => res.upgrade<SocketData>({ session, connection }, key, protocolName, extensions, context));
        },
        (error: unknown) => {
          if (error instanceof Elsewhere) return void (aborted || res.cork(() => res.writeStatus('307 Temporary Redirect').writeHeader('location', error.url).end(undefined, true)));
          if (!(error instanceof SpamerError)) this.#parts.journal.error('a handshake failed', { fault: faultOf(error) });
          refuse(toSpamerError(error, 'overloaded', 'handshake').code);
        },
      )
      .catch((error: unknown) => this.#parts.journal.error('a handshake could not be answered', { fault: faultOf(error) }))
      .finally(() => {
        this.counters.handshakes -= 1;
        this.#turns.leave();
      });
  }

  #full(): ErrorCode | null {
    const { limits } = this.#parts.settings;
    if (this.#stopping !== null) return 'stopping';
    if (this.counters.connections >= limits.connectionsMax) return 'overloaded';
    return null;
  }

  /** The device's session, held, once its token is proved, unused, and durably used up. */
  async #admit(authorization: string): Promise<Session> {
    const token = await this.#parts.tokens.verify(bearerToken(authorization));
    const lane = this.#laneOf(token.device);
    await lane.commit.join([lane.used.claim(token)]);
    const session = await this.#sessions.hold(token.device);
    try {
      if (session.moving || this.#lanes.of(session.partition) !== session.lane) throw new SpamerError('stopping', 'the share of this device is going to another process');
      // Read when the session can be found: whoever bars the device from now on finds it too.
      await this.#renew(session);
      if (session.barred) throw new SpamerError('unauthenticated', 'device not active');
      // No entry, no act [DENY]; frames wait for none.
      await this.#parts.book.admitted(token.device, token.decidedBy);
    } catch (error) {
      this.#sessions.release(session);
      throw error;
    }
    return session;
  }

  /** @throws Elsewhere; SpamerError `unreachable`: no process that is known has the share. */
  #laneOf(device: DeviceId): Lane {
    const { partitions, shares } = this.#parts.settings;
    const partition = partitionOf(uuidBytes(device), partitions);
    const lane = this.#lanes.of(partition);
    if (lane !== undefined) return lane;
    const url = this.#parts.elsewhere?.(shareOf(partition, shares)) ?? null;
    if (url === null) throw new SpamerError('unreachable', 'no process takes frames of this device now');
    throw new Elsewhere(url);
  }

  async #loadSession(device: DeviceId): Promise<Session> {
    const { framesPerS, bytesPerS, partitions } = this.#parts.settings;
    const lane = this.#laneOf(device);
    const stored = await lane.writer.stateGet('devices', device);
    const state = stored === null ? null : (JSON.parse(Buffer.from(stored).toString()) as DeviceState);
    return new Session(device, state, partitions, lane, new Rate(framesPerS, bytesPerS, this.#clock.elapsedMs()));
  }

  /** Those whose patient still has a key. */
  async #bindings(entry: DeviceEntry): Promise<readonly Binding[]> {
    const bindings: Binding[] = [];
    for (const { patient, from, until } of entry.bindings) {
      const seal = await this.#parts.sealFor(patient);
      if (seal !== null) bindings.push({ patient, patientBytes: ownBytes(uuidBytes(patient)), from, until, seal });
    }
    return bindings;
  }

  #greet(session: Session, connection: Connection): void {
    const { settings } = this.#parts;
    const before = session.connection;
    session.connection = connection;
    // The device resumes from what is durable; what is on its way meanwhile is recognised as passed [ONCE].
    session.stalled = false;
    this.counters.connections += 1;
    this.counters.connectionsTotal += 1;
    before?.close(closeCodes.replaced, 'replaced');
    connection.send(
      encode('Hello', {
        serverTime: this.#clock.now(),
        epoch: session.durable.epoch,
        durableSeq: session.durable.seq,
        windowFrames: settings.limits.windowFrames,
        windowBytes: offeredWindowBytes(settings.limits, this.counters.connections),
        frameBytesMax: settings.limits.frameBytesMax,
        messageBytesMax: settings.limits.messageBytesMax,
        batchMs: settings.batchMs,
      }),
    );
    // Barred, or given to another process, while the handshake was answered.
    if (session.moving) connection.close(closeCodes.stopping, 'stopping');
    if (session.barred) connection.close(closeCodes.forbidden, 'forbidden');
  }

  #closed(session: Session, connection: Connection): void {
    connection.closed();
    this.counters.connections -= 1;
    if (session.connection === connection) session.connection = null;
    this.#sessions.release(session);
  }

  #durable(session: Session, state: DeviceState): void {
    const { skipped, frames, bytes, samples } = session.endFlush(state);
    this.counters.pendingFrames -= frames;
    this.counters.pendingBytes -= bytes;
    this.counters.frames += frames - skipped.length;
    this.counters.samples += samples;
    this.counters.bytes += bytes;
    for (const skip of skipped) session.connection?.nack(skip, skip.code, 0);
    session.connection?.ack(session.durable);
    this.#sessions.forgetIdle(session);
  }

  #failed(session: Session, code: ErrorCode): void {
    const { retryAfterMs } = this.#parts.settings;
    const { first, frames, bytes } = session.rollBack();
    this.counters.pendingFrames -= frames;
    this.counters.pendingBytes -= bytes;
    if (code !== 'overloaded') this.#receiver.refuse(code);
    session.connection?.nack(first, code, retryAfterMs);
    this.#sessions.forgetIdle(session);
  }

  async #drain(): Promise<void> {
    this.#receiver.stop();
    if (this.#expiry !== null) clearInterval(this.#expiry);
    await this.#lanes.drain();
    this.#commands.stop();
    for (const session of [...this.#sessions.all()]) session.connection?.close(closeCodes.stopping, 'stopping');
    // Time for the close frames to leave before the sockets, the listening one too, are torn down.
    await new Promise((resolve) => setTimeout(resolve, farewellMs));
    this.#listener?.close();
    this.#cork.close();
  }
}

/**
 * Half of what all devices together may have pending, shared out among those connected: full windows of a thousand devices
 * are sixteen times the room there is, and each frame was sent three times over. What is refused is the whole window still.
 */
function offeredWindowBytes({ windowBytes, windowBytesMin, pendingBytesMax }: IngestLimits, connections: number): number {
  return Math.max(windowBytesMin, Math.min(windowBytes, Math.floor(pendingBytesMax / 2 / Math.max(1, connections))));
}

/** All refusals of a token look the same. */
const statusLines: Partial<Record<ErrorCode, string>> = {
  unauthenticated: '401 Unauthorized',
  bad_request: '400 Bad Request',
  overloaded: '503 Service Unavailable',
  stopping: '503 Service Unavailable',
  audit_failed: '503 Service Unavailable',
  disk_full: '503 Service Unavailable',
  log_failed: '503 Service Unavailable',
  unreachable: '503 Service Unavailable',
  store_failed: '503 Service Unavailable',
};
