import { kafkaServerMissing, kafkaVersion, startKafka } from '../../tests/kafka.js';
import { library, libraryVersion, notInstalled, payloads, survivorsOf, windowed, type Peer, type RunningPeer } from './peer.js';

interface Producer {
  connect(options: object, connected: (error: Error | null) => void): void;
  produce(topic: string, partition: number, value: Buffer, key: null, timestamp: number, opaque: null): void;
  on(event: 'delivery-report', listener: (error: Error | null) => void): void;
  setPollInterval(ms: number): void;
  disconnect(done: () => void): void;
}
interface Consumer {
  connect(options: object, connected: (error: Error | null) => void): void;
  queryWatermarkOffsets(topic: string, partition: number, timeoutMs: number, done: (error: Error | null, offsets: { readonly lowOffset: number; readonly highOffset: number }) => void): void;
  disconnect(done: () => void): void;
}
interface Client {
  readonly Producer: new (settings: object) => Producer;
  readonly KafkaConsumer: new (settings: object) => Consumer;
}

const clientName = '@confluentinc/kafka-javascript';

/** Apache Kafka, one broker, fed directly by the client that our log on Kafka uses: idempotent producer, acks=all. */
export const kafkaDirect: Peer = {
  name: 'Apache Kafka, one broker, acks=all',
  guarantees: { acked: 'when the broker has it in memory (page cache)', durable: 'over kill -9; over a power cut only with more brokers', encrypted: 'no', checked: 'no; anonymous' },
  missing: () => (library<Client>(clientName) === null ? notInstalled(clientName) : kafkaServerMissing()),
  versions: () => `kafka ${kafkaVersion}, ${libraryVersion(clientName)}`,
  start,
};

async function start(): Promise<RunningPeer> {
  const client = library<Client>(clientName);
  if (client === null) throw new RangeError('the Kafka client is missing');
  const servers = await startKafka({ longLived: true, properties: { 'num.partitions': 1, 'auto.create.topics.enable': 'true' } });
  const feed = (count: number): Promise<number> => produce(client, servers.brokers, count);
  // The first frames make the topic, and are not timed.
  await feed(1000);
  return {
    pid: servers.pid(),
    feed,
    survivors: async () => {
      await feed(survivorsOf);
      await servers.kill();
      await servers.start();
      return await length(client, servers.brokers) - 1000;
    },
    end: () => servers.discard(),
  };
}

async function produce(client: Client, brokers: string, count: number): Promise<number> {
  const frames = payloads();
  const producer = new client.Producer({ 'metadata.broker.list': brokers, 'enable.idempotence': true, 'acks': -1, 'linger.ms': 1, 'dr_cb': true, 'queue.buffering.max.messages': 100_000 });
  await new Promise<void>((resolve, reject) => producer.connect({ timeout: 10_000 }, (error) => (error === null ? resolve() : reject(error))));
  producer.setPollInterval(1);
  let done: (error?: Error | null) => void = () => undefined;
  producer.on('delivery-report', (error) => done(error));
  const seconds = await windowed(count, (index, answered) => {
    done = answered;
    producer.produce('v', 0, frames[index % frames.length] as Buffer, null, Date.now(), null);
  });
  await new Promise<void>((resolve) => producer.disconnect(resolve));
  return seconds;
}

async function length(client: Client, brokers: string): Promise<number> {
  const consumer = new client.KafkaConsumer({ 'metadata.broker.list': brokers, 'group.id': 'counts' });
  await new Promise<void>((resolve, reject) => consumer.connect({ timeout: 10_000 }, (error) => (error === null ? resolve() : reject(error))));
  const { lowOffset, highOffset } = await new Promise<{ lowOffset: number; highOffset: number }>((resolve, reject) => {
    consumer.queryWatermarkOffsets('v', 0, 10_000, (error, offsets) => (error === null ? resolve(offsets) : reject(error)));
  });
  await new Promise<void>((resolve) => consumer.disconnect(resolve));
  return highOffset - lowOffset;
}
