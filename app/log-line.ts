import { SpamerError } from '../core/errors.js';
import type { Log, NewRecord, StateWrite, TopicSettings, Transaction, Writer } from '../log/log.js';
import { connect, serve, type Port, type Remote } from './rpc.js';

/** A log for those who may not open it themselves: one side has it, the other asks over a port, of a thread or of another process. */

/** What is asked over the port. Commits of a writer arrive, and so are made, in the order of their calls. */
class LogService {
  readonly #log: Log;
  readonly #writers = new Map<string, Writer>();
  readonly #waits = new Map<number, AbortController>();

  constructor(log: Log) {
    this.#log = log;
  }

  async openWriter(name: string): Promise<void> {
    this.#writers.set(name, await this.#log.writer(name));
  }

  async closeWriter(name: string): Promise<void> {
    const writer = this.#writers.get(name);
    this.#writers.delete(name);
    await writer?.close();
  }

  commit(writer: string, transaction: Transaction): ReturnType<Writer['commit']> {
    return this.#writer(writer).commit(transaction);
  }

  consumed(writer: string, topic: string, partition: number): ReturnType<Writer['consumed']> {
    return this.#writer(writer).consumed(topic, partition);
  }

  stateGet(writer: string, table: string, key: string): ReturnType<Writer['stateGet']> {
    return this.#writer(writer).stateGet(table, key);
  }

  ownScan(writer: string, table: string, prefix: string): ReturnType<Writer['stateScan']> {
    return this.#writer(writer).stateScan(table, prefix);
  }

  /** Under a number by which it can be ended: a signal does not cross. */
  async wait(id: number, topic: string, partition: number, offset: number): Promise<void> {
    const ended = new AbortController();
    this.#waits.set(id, ended);
    await this.#log.wait(topic, partition, offset, ended.signal).finally(() => this.#waits.delete(id));
  }

  async endWait(id: number): Promise<void> {
    this.#waits.get(id)?.abort();
  }

  read(...asked: Parameters<Log['read']>): ReturnType<Log['read']> {
    return this.#log.read(...asked);
  }

  seek(...asked: Parameters<Log['seek']>): ReturnType<Log['seek']> {
    return this.#log.seek(...asked);
  }

  status(): ReturnType<Log['status']> {
    return this.#log.status();
  }

  consumers(): ReturnType<Log['consumers']> {
    return this.#log.consumers();
  }

  stateScan(...asked: Parameters<Log['stateScan']>): ReturnType<Log['stateScan']> {
    return this.#log.stateScan(...asked);
  }

  retain(nowUs: number): ReturnType<Log['retain']> {
    return this.#log.retain(nowUs);
  }

  #writer(name: string): Writer {
    const writer = this.#writers.get(name);
    if (writer === undefined) throw new SpamerError('log_failed', 'the writer is closed', { where: name });
    return writer;
  }
}

/** Offers `log` on the port. It stays with its owner, who closes it. */
export function serveLog(port: Port, log: Log): void {
  serve(port, new LogService(log));
}

/** @param close what ends the line; the writers that were opened over it are closed before. */
export function remoteLog(port: Port, topics: readonly TopicSettings[], close: () => Promise<void>): Log {
  const connection = connect<LogService>(port);
  return new RemoteLog(connection.api, topics, async () => {
    await close();
    connection.disconnect('the log is closed');
  });
}

class RemoteLog implements Log {
  readonly #service: Remote<LogService>;
  readonly #topics: readonly TopicSettings[];
  readonly #close: () => Promise<void>;
  readonly #writers = new Set<RemoteWriter>();
  #lastWait = 0;

  constructor(service: Remote<LogService>, topics: readonly TopicSettings[], close: () => Promise<void>) {
    this.#service = service;
    this.#topics = topics;
    this.#close = close;
  }

  topics(): readonly TopicSettings[] {
    return this.#topics;
  }

  async writer(name: string): Promise<Writer> {
    await this.#service.openWriter(name);
    const writer = new RemoteWriter(this.#service, name, () => this.#writers.delete(writer));
    this.#writers.add(writer);
    return writer;
  }

  read(...asked: Parameters<Log['read']>): ReturnType<Log['read']> {
    return this.#service.read(...asked);
  }

  /** A line that is gone is left to the read that follows, which can report it. */
  async wait(topic: string, partition: number, offset: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const id = ++this.#lastWait;
    const waited = this.#service.wait(id, topic, partition, offset).catch(() => undefined);
    const end = (): void => void this.#service.endWait(id).catch(() => undefined);
    signal.addEventListener('abort', end, { once: true });
    await waited;
    signal.removeEventListener('abort', end);
  }

  seek(...asked: Parameters<Log['seek']>): ReturnType<Log['seek']> {
    return this.#service.seek(...asked);
  }

  status(): ReturnType<Log['status']> {
    return this.#service.status();
  }

  consumers(): ReturnType<Log['consumers']> {
    return this.#service.consumers();
  }

  stateScan(...asked: Parameters<Log['stateScan']>): ReturnType<Log['stateScan']> {
    return this.#service.stateScan(...asked);
  }

  retain(nowUs: number): ReturnType<Log['retain']> {
    return this.#service.retain(nowUs);
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#writers].map((writer) => writer.close()));
    await this.#close();
  }
}

class RemoteWriter implements Writer {
  readonly #service: Remote<LogService>;
  readonly #name: string;
  readonly #closed: () => void;
  #closing: Promise<void> | undefined;

  constructor(service: Remote<LogService>, name: string, closed: () => void) {
    this.#service = service;
    this.#name = name;
    this.#closed = closed;
  }

  async commit(transaction: Transaction): Promise<readonly number[]> {
    if (this.#closing !== undefined) throw new SpamerError('log_failed', 'the writer is closed', { where: this.#name });
    return this.#service.commit(this.#name, owned(transaction));
  }

  consumed(topic: string, partition: number): Promise<number> {
    return this.#service.consumed(this.#name, topic, partition);
  }

  stateGet(table: string, key: string): ReturnType<Writer['stateGet']> {
    return this.#service.stateGet(this.#name, table, key);
  }

  stateScan(table: string, prefix: string): ReturnType<Writer['stateScan']> {
    return this.#service.ownScan(this.#name, table, prefix);
  }

  close(): Promise<void> {
    this.#closing ??= this.#service.closeWriter(this.#name).finally(this.#closed);
    return this.#closing;
  }
}

/** A view crosses with all of the buffer that it is of; so what is a part of a larger one, as Node's pool gives it out, is copied out. */
function owned({ records, state = [], consumed = [] }: Transaction): Transaction {
  return {
    records: records.map((record): NewRecord => ({ ...record, key: ownBytes(record.key), value: ownBytes(record.value) })),
    state: state.map((write): StateWrite => ({ ...write, value: write.value === null ? null : ownBytes(write.value) })),
    consumed,
  };
}

const ownBytes = (bytes: Uint8Array): Uint8Array => (bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice());
