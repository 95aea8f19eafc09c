import { SpamerError } from '../core/errors.js';
import { answered, kafkaError, type ClientSettings, type KafkaConsumer, type KafkaMessage, type KafkaModule } from './kafka-client.js';

/** Whether it goes on from where it is, or seeks from place to place. */
export type CursorUse = 'standing' | 'hopping';

/**
 * So long the broker holds the question of a cursor that is at the end, whether or not anybody reads; what is new is given at once. The client asks nothing else
 * of that broker meanwhile, so each hop may wait as long.
 */
const fetchMs: Readonly<Record<CursorUse, number>> = { standing: 250, hopping: 50 };
/** How long one call waits for a first message; it holds a thread of Node's pool meanwhile. */
const consumeMs = 50;
/** After so long without progress towards an end that the broker has told, reading fails. */
const stallMs = 15_000;

/** Reads committed messages from a position on, in Kafka's own offsets. One call at a time. */
export class Cursor {
  readonly #consumer: KafkaConsumer;
  #topic = '';
  #partition = -1;
  #position = -1;
  /** Whether the client reads from where this one is: it is told just before a read, since two assignments without one between end the process. */
  #assigned = false;
  /** The position that the broker was last found empty at. */
  #emptyAt = -1;

  private constructor(consumer: KafkaConsumer) {
    this.#consumer = consumer;
    consumer.on('partition.eof', ({ offset }) => { this.#emptyAt = Math.max(this.#emptyAt, offset); });
  }

  static async open(kafka: KafkaModule, settings: ClientSettings, use: CursorUse, timeoutMs: number): Promise<Cursor> {
    // A group is demanded by name; nothing is committed to it and no partition is assigned by it.
    const consumer = new kafka.KafkaConsumer({ ...settings, 'group.id': 'spamer-log', 'enable.auto.commit': false, 'isolation.level': 'read_committed', 'enable.partition.eof': true, 'fetch.wait.max.ms': fetchMs[use], 'fetch.message.max.bytes': 8 * 1024 * 1024, 'queued.max.messages.kbytes': 16 * 1024 }, { 'auto.offset.reset': 'error' });
    consumer.on('event.error', () => undefined);
    await answered<void>((done) => consumer.connect({ timeout: timeoutMs }, done)).catch((error: unknown) => { throw kafkaError(error, 'brokers'); });
    consumer.setDefaultConsumeTimeout(consumeMs);
    consumer.setDefaultIsTimeoutOnlyForFirstMessage(true);
    return new Cursor(consumer);
  }

  get position(): number {
    return this.#position;
  }

  seek(topic: string, partition: number, position: number): void {
    if (topic === this.#topic && partition === this.#partition && position === this.#position) return;
    [this.#topic, this.#partition, this.#position, this.#emptyAt, this.#assigned] = [topic, partition, position, -1, false];
  }

  /**
   * The next messages below `end`, at most `count`; empty only when there is none below it. `end` is what the broker gave as the end of
   * what is committed: the last thing below it is the mark that ends a transaction, so a message just below that is the last.
   */
  async next(count: number, end: number): Promise<readonly KafkaMessage[]> {
    const since = performance.now();
    while (this.#position < end && this.#emptyAt < end) {
      const messages = await this.#consume(count);
      const last = messages.at(-1);
      if (last !== undefined) {
        this.#position = last.offset + 1 === end - 1 ? end : last.offset + 1;
        return messages;
      }
      if (performance.now() - since > stallMs) throw new SpamerError('unreachable', 'the Kafka broker gives no records', { where: `${this.#topic}/${this.#partition}` });
    }
    this.#position = Math.max(this.#position, end);
    return [];
  }

  async close(): Promise<void> {
    await answered<void>((done) => this.#consumer.disconnect(done));
  }

  async #consume(count: number): Promise<readonly KafkaMessage[]> {
    try {
      if (!this.#assigned) this.#consumer.assign([{ topic: this.#topic, partition: this.#partition, offset: this.#position }]);
      this.#assigned = true;
      return await answered<readonly KafkaMessage[]>((answer) => this.#consumer.consume(count, answer));
    } catch (error) {
      // The client's own place in the partition is unknown now.
      this.#assigned = false;
      throw kafkaError(error, `${this.#topic}/${this.#partition}`);
    }
  }
}
