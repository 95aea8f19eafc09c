import { createCipheriv, createDecipheriv, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { SpamerError, type ErrorCode } from '../core/errors.js';
import { deviceId, patientId, type DeviceId, type PatientId } from '../core/ids.js';
import { silentJournal, type Journal } from '../core/journal.js';
import type { NewRecord, Transaction, Writer } from '../log/log.js';
import { decode, header, messageName } from '../schemas/codec.js';
import { decodeFrameBodies, encodeFrameBody, type DecodedFrame } from '../schemas/frames.js';
import type { Ack, Command, Hello, Nack } from '../schemas/types.js';
import type { DeviceEntry } from './bindings.js';
import type { DeviceToken } from './handshake.js';
import { IngestServer, ingestDefaults, protocolName, type IngestSettings } from './server.js';

export const newDevice = (): DeviceId => deviceId(randomUUID()) as DeviceId;
export const newPatient = (): PatientId => patientId(randomUUID()) as PatientId;

/** A log's writer in memory, with its transactions all or nothing, and failures on demand. */
export class MemoryWriter implements Writer {
  readonly records: NewRecord[] = [];
  readonly state = new Map<string, Map<string, Buffer>>();
  fail: ErrorCode | null = null;
  delayMs = 0;
  commits = 0;

  async commit(transaction: Transaction): Promise<readonly number[]> {
    if (this.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    else await new Promise((resolve) => setImmediate(resolve));
    if (this.fail !== null) throw new SpamerError(this.fail, 'as the test asked');
    this.commits += 1;
    for (const { table, key, value } of transaction.state ?? []) {
      const entries = this.state.get(table) ?? new Map<string, Buffer>();
      this.state.set(table, entries);
      if (value === null) entries.delete(key);
      else entries.set(key, Buffer.from(value));
    }
    return transaction.records.map((record) => this.records.push({ ...record, value: Buffer.from(record.value) }) - 1);
  }

  consumed(): Promise<number> {
    return Promise.resolve(0);
  }

  stateGet(table: string, key: string): Promise<Buffer | null> {
    return Promise.resolve(this.state.get(table)?.get(key) ?? null);
  }

  stateScan(table: string, prefix: string): Promise<ReadonlyArray<{ key: string; value: Buffer }>> {
    const entries = [...(this.state.get(table) ?? [])].filter(([key]) => key.startsWith(prefix));
    return Promise.resolve(entries.map(([key, value]) => ({ key, value })));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** A ward's registry, keys and token desk. A token is `device.jti.expiryMs.good`. */
export class Ward {
  readonly entries = new Map<DeviceId, DeviceEntry>();
  readonly keys = new Map<PatientId, Buffer>();
  /** What the door wrote down; `bookFails`: nothing can be. */
  readonly admitted: DeviceId[] = [];
  readonly refused: string[] = [];
  bookFails = false;
  readonly book = {
    admitted: (device: DeviceId): Promise<void> => {
      if (this.bookFails) return Promise.reject(new SpamerError('audit_failed', 'not now'));
      this.admitted.push(device);
      return Promise.resolve();
    },
    refused: (code: string): void => { this.refused.push(code); },
  };

  addDevice(bindings?: DeviceEntry['bindings']): DeviceId {
    const device = newDevice();
    this.entries.set(device, { state: 'active', bindings: bindings ?? [{ patient: this.addPatient(), from: 0, until: null }] });
    return device;
  }

  addPatient(): PatientId {
    const patient = newPatient();
    this.keys.set(patient, randomBytes(32));
    return patient;
  }

  token(device: DeviceId, expiresAtMs = Date.now() + 60_000): string {
    return `${device}.${randomUUID()}.${expiresAtMs}.good`;
  }

  deviceEntry(device: DeviceId): Promise<DeviceEntry | null> {
    return Promise.resolve(this.entries.get(device) ?? null);
  }

  sealFor(patient: PatientId): Promise<((plain: Uint8Array, context: Uint8Array) => Buffer) | null> {
    const key = this.keys.get(patient);
    if (key === undefined) return Promise.resolve(null);
    return Promise.resolve((plain, context) => {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(context);
      return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    });
  }

  verify(token: string): Promise<DeviceToken> {
    const [text = '', id = '', expiry = '', signature, ...rest] = token.split('.');
    const device = deviceId(text);
    if (device === null || signature !== 'good' || rest.length > 0 || !(Number(expiry) > Date.now())) throw new SpamerError('unauthenticated', 'bad token');
    return Promise.resolve({ device, id, expiresAtUs: Number(expiry) * 1000, decidedBy: 'test' });
  }

  /** Frames of the log in stored order, opened and authenticated. */
  open(records: Iterable<{ readonly value: Uint8Array }>): Array<{ device: string; patient: string; frame: DecodedFrame }> {
    const frames = [];
    for (const { value } of records) {
      const block = decode('Block', value);
      const patient = uuid(block.patient) as PatientId;
      const context = Buffer.concat([Buffer.from(value).subarray(5, value.length - block.sealed.length - prefixBytes(block.sealed.length)), Buffer.alloc(1)]);
      const sealed = block.sealed;
      const key = this.keys.get(patient) as Buffer;
      const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12)).setAAD(context).setAuthTag(sealed.subarray(-16));
      const plain = Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
      for (const frame of decodeFrameBodies(plain)) frames.push({ device: uuid(block.device), patient, frame });
    }
    return frames;
  }
}

const prefixBytes = (length: number): number => Math.max(1, Math.ceil(Math.log2(length * 2 + 1) / 7));

const uuid = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

export type SettingsChange = Partial<Omit<IngestSettings, 'limits'>> & { readonly limits?: Partial<IngestSettings['limits']> };

export function startIngest(writer: Writer, ward: Ward, change: SettingsChange = {}, journal: Journal = silentJournal): Promise<IngestServer> {
  const settings = { ...ingestDefaults, port: 0, ...change, limits: { ...ingestDefaults.limits, ...change.limits } };
  return IngestServer.start({ writers: new Map([[0, writer]]), devices: ward, tokens: ward, book: ward.book, sealFor: (patient) => ward.sealFor(patient), journal, settings });
}

/** One reading a frame. */
export function numericFrame(epoch: number, seq: number, timeUs = Date.now() * 1000): DecodedFrame {
  return { epoch, seq, sentAt: timeUs, waveforms: [], numerics: [{ code: 147842, unit: 264864, time: timeUs, value: 60 + (seq % 40) }], events: [] };
}

export function frameMessage(...frames: DecodedFrame[]): Buffer {
  return Buffer.concat([header('Frame'), ...frames.map((frame) => encodeFrameBody(frame))]);
}

/** A device that notes all it hears. */
export class TestDevice {
  readonly socket: WebSocket;
  hello: Hello | null = null;
  readonly acks: Ack[] = [];
  readonly nacks: Nack[] = [];
  readonly commands: Command[] = [];
  closeCode: number | null = null;
  fault = '';
  #changed: Array<() => void> = [];

  constructor(url: string, token: string, deflate = false) {
    this.socket = new WebSocket(url, [protocolName], { headers: { authorization: `Bearer ${token}` }, perMessageDeflate: deflate && { threshold: 0, clientNoContextTakeover: true } });
    this.socket.on('message', (bytes: Buffer) => this.#heard(bytes));
    this.socket.on('error', (error) => (this.fault = error.message));
    this.socket.on('close', (code) => {
      this.closeCode = code;
      this.#tell();
    });
  }

  static async connect(url: string, token: string, deflate = false): Promise<TestDevice> {
    const device = new TestDevice(url, token, deflate);
    await device.until(() => device.hello !== null);
    return device;
  }

  get acked(): number {
    return this.acks.at(-1)?.seq ?? 0;
  }

  send(...frames: DecodedFrame[]): void {
    this.socket.send(frameMessage(...frames));
  }

  /** Rejects when the connection closes, or the time passes, before `condition` holds. */
  async until(condition: () => boolean, timeoutMs = 5000): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (!condition()) {
      if (this.closeCode !== null) throw new SpamerError('internal', `closed with ${this.closeCode}; ${this.fault}`);
      if (Date.now() > deadline) throw new SpamerError('internal', `nothing came in time ${this.fault}; acked ${this.acked}, nacks ${JSON.stringify(this.nacks.slice(0, 3))}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 100);
        this.#changed.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  async closed(timeoutMs = 5000): Promise<number> {
    if (this.closeCode === null) await once(this.socket, 'close', { signal: AbortSignal.timeout(timeoutMs) });
    return this.closeCode ?? 0;
  }

  async leave(): Promise<void> {
    if (this.closeCode !== null) return;
    this.socket.close();
    await this.closed();
  }

  #heard(bytes: Buffer): void {
    const name = messageName(bytes);
    if (name === 'Hello') this.hello = decode('Hello', bytes);
    if (name === 'Ack') this.acks.push(decode('Ack', bytes));
    if (name === 'Nack') this.nacks.push({ ...decode('Nack', bytes) });
    if (name === 'Command') this.commands.push(decode('Command', bytes));
    this.#tell();
  }

  #tell(): void {
    for (const changed of this.#changed.splice(0)) changed();
  }
}
