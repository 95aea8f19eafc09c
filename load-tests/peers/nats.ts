import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../../tests/program.js';
import { folderOf, killed, library, libraryVersion, listening, notInstalled, payloads, programOf, programVersion, survivorsOf, windowed, type Peer, type RunningPeer } from './peer.js';

interface Connection {
  publish(subject: string, payload: Uint8Array, options: { readonly reply: string }): void;
  subscribe(subject: string, options: { readonly callback: (error: Error | null, message: { readonly data: Uint8Array }) => void }): { unsubscribe(): void };
  close(): Promise<void>;
}
interface Transport { connect(options: { readonly servers: string; readonly noAsyncTraces: boolean }): Promise<Connection> }
interface Manager {
  readonly streams: {
    add(config: { readonly name: string; readonly subjects: readonly string[]; readonly storage: 'file' }): Promise<unknown>;
    info(name: string): Promise<{ readonly state: { readonly messages: number } }>;
  };
}
interface JetStream {
  jetstreamManager(connection: Connection): Promise<Manager>;
  jetstream(connection: Connection): { publish(subject: string, payload: Uint8Array): Promise<unknown> };
}

type Sync = 'default' | 'always';

const program = (): string | null => programOf(['nats-server'], ['--version']);

/**
 * NATS JetStream with file storage. `default` flushes every two minutes; `always` before each ack, which is what we do, and there one frame
 * is acked before the next is sent: with more in flight it flushes each by itself all the same.
 */
export function jetStream(sync: Sync): Peer {
  const always = sync === 'always';
  return {
    name: always ? 'NATS JetStream, sync_interval: always, one by one' : 'NATS JetStream',
    guarantees: { acked: always ? 'PubAck when it is flushed, each waited for' : 'PubAck when the file is written', durable: always ? 'yes' : 'over kill -9; over a power cut what two minutes wrote is lost', encrypted: 'no', checked: 'no; anonymous' },
    ...(always ? { countMax: 20_000 } : {}),
    missing: () => (program() === null ? 'nats-server is not on the path (go install github.com/nats-io/nats-server/v2@v2.12.1)' : library<JetStream>('@nats-io/jetstream') === null ? notInstalled('the NATS client') : null),
    versions: () => `nats-server ${programVersion(program(), ['--version'], /v(\d\S*)/)}, ${libraryVersion('@nats-io/jetstream')}`,
    start: () => start(sync),
  };
}

async function start(sync: Sync): Promise<RunningPeer> {
  const [server, transport, js] = [program(), library<Transport>('@nats-io/transport-node'), library<JetStream>('@nats-io/jetstream')];
  if (server === null || transport === null || js === null) throw new RangeError('NATS or its client is missing');
  const folder = folderOf('nats');
  const port = await freePort();
  writeFileSync(join(folder.dir, 'n.conf'), `listen: 127.0.0.1:${port}\njetstream { store_dir: "${folder.dir}/js"${sync === 'always' ? ', sync_interval: always' : ''} }\n`);
  const run = (): ReturnType<typeof listening> => listening(server, ['-c', join(folder.dir, 'n.conf')], port);
  let child = await run();
  const connected = (): Promise<Connection> => transport.connect({ servers: `127.0.0.1:${port}`, noAsyncTraces: true });
  const first = await connected();
  await (await js.jetstreamManager(first)).streams.add({ name: 'v', subjects: ['v'], storage: 'file' });
  await first.close();
  const feed = async (count: number): Promise<number> => {
    const connection = await connected();
    const seconds = sync === 'always' ? await oneByOne(js.jetstream(connection), count) : await counted(connection, count);
    await connection.close();
    return seconds;
  };
  return {
    pid: child.pid ?? 0,
    feed,
    survivors: async () => {
      await feed(survivorsOf);
      await killed(child);
      child = await run();
      const connection = await connected();
      const { state } = await (await js.jetstreamManager(connection)).streams.info('v');
      await connection.close();
      return state.messages;
    },
    end: async () => {
      await killed(child);
      folder.remove();
    },
  };
}

async function oneByOne(stream: { publish(subject: string, payload: Uint8Array): Promise<unknown> }, count: number): Promise<number> {
  const frames = payloads();
  const begin = performance.now();
  for (let index = 0; index < count; index++) await stream.publish('v', frames[index % frames.length] as Buffer);
  return (performance.now() - begin) / 1000;
}

/** PubAcks are counted only: `publish` of the JetStream client makes a promise and a subject for each and is several times slower. */
async function counted(connection: Connection, count: number): Promise<number> {
  const frames = payloads();
  const inbox = `_INBOX.acks${process.pid}`;
  let done: (error?: Error | null) => void = () => undefined;
  const acks = connection.subscribe(inbox, { callback: (error, { data }) => done(error ?? (Buffer.from(data).includes('"error"') ? new RangeError('JetStream refused a frame') : null)) });
  const seconds = await windowed(count, (index, answered) => {
    done = answered;
    connection.publish('v', frames[index % frames.length] as Buffer, { reply: inbox });
  });
  acks.unsubscribe();
  return seconds;
}
