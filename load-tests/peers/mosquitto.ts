import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../tests/program.js';
import { folderOf, killed, library, libraryVersion, listening, notInstalled, payloads, programOf, programVersion, survivorsOf, windowed, type Peer, type RunningPeer } from './peer.js';

type Qos = 0 | 1 | 2;

interface MqttClient {
  publish(topic: string, payload: Buffer, options: { readonly qos: Qos }, done: (error?: Error | null) => void): void;
  subscribeAsync(topic: string, options: { readonly qos: Qos }): Promise<unknown>;
  on(event: 'message', listener: () => void): void;
  endAsync(): Promise<void>;
}
interface Mqtt { connectAsync(url: string, options: object): Promise<MqttClient> }

const program = (): string | null => programOf(['mosquitto', '/usr/sbin/mosquitto'], ['-h']);

const acked: Readonly<Record<Qos, string>> = {
  0: 'nothing; timed until a QoS 1 message behind them is answered',
  1: 'PUBACK when the broker has it in memory',
  2: 'PUBCOMP when the broker has it in memory, once',
};

/** Mosquitto with the `mqtt` client, nodelay on both ends, 1,000 in flight. */
export function mosquitto(qos: Qos): Peer {
  return {
    name: `Mosquitto QoS ${qos}`,
    guarantees: { acked: acked[qos], durable: 'no: its database is written every half hour and at a clean stop', encrypted: 'no', checked: 'no; anonymous' },
    missing: () => (program() === null ? 'mosquitto is not installed (Debian: apt-get install mosquitto)' : library<Mqtt>('mqtt') === null ? notInstalled('the mqtt client') : null),
    versions: () => `mosquitto ${programVersion(program(), ['-h'], /version (\S+)/)}, ${libraryVersion('mqtt')}`,
    start: () => start(qos),
  };
}

async function start(qos: Qos): Promise<RunningPeer> {
  const mqtt = library<Mqtt>('mqtt');
  const broker = program();
  if (mqtt === null || broker === null) throw new RangeError('mosquitto or its client is missing');
  const folder = folderOf('mosquitto');
  const port = await freePort();
  const settings = ['set_tcp_nodelay true', 'max_inflight_messages 0', 'max_queued_messages 0', 'max_queued_bytes 0', 'persistence true', `persistence_location ${folder.dir}/`];
  writeFileSync(join(folder.dir, 'm.conf'), [`listener ${port} 127.0.0.1`, 'allow_anonymous true', 'user root', ...settings, ''].join('\n'));
  const run = (): ReturnType<typeof listening> => listening(broker, ['-c', join(folder.dir, 'm.conf')], port);
  let child = await run();
  const url = `mqtt://127.0.0.1:${port}`;
  const away = { clientId: 'away', clean: false, reconnectPeriod: 0 };
  const feed = async (count: number): Promise<number> => {
    const client = await mqtt.connectAsync(url, { reconnectPeriod: 0 });
    const frames = payloads();
    const begin = performance.now();
    await windowed(count, (index, done) => client.publish('v', frames[index % frames.length] as Buffer, { qos }, done));
    if (qos === 0) await windowed(1, (_, done) => client.publish('end', Buffer.alloc(1), { qos: 1 }, done));
    const seconds = (performance.now() - begin) / 1000;
    await client.endAsync();
    return seconds;
  };
  return {
    pid: child.pid ?? 0,
    feed,
    survivors: async () => {
      // A subscriber that is away: for it the broker must keep what it acks.
      const subscriber = await mqtt.connectAsync(url, away);
      await subscriber.subscribeAsync('v', { qos: 1 });
      await subscriber.endAsync();
      await feed(survivorsOf);
      await killed(child);
      child = await run();
      const back = await mqtt.connectAsync(url, away);
      let found = 0;
      back.on('message', () => { found += 1; });
      await back.subscribeAsync('v', { qos: 1 });
      for (let before = -1; before !== found;) {
        before = found;
        await sleep(1000);
      }
      await back.endAsync();
      return found;
    },
    end: async () => {
      await killed(child);
      folder.remove();
    },
  };
}
