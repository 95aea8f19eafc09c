import { writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../tests/program.js';
import { folderOf, killed, listening, payloads, programOf, programVersion, survivorsOf, type Peer, type RunningPeer } from './peer.js';
import { RawMqtt } from './raw-mqtt.js';

const program = (): string | null => programOf(['rumqttd', join(homedir(), '.cargo', 'bin', 'rumqttd')], ['--version']);

/** Messages in flight: its acks come in bursts up to 40 ms apart, so what is in flight between two of them is what it is seen to take. */
const aheadMax = 10_000;

/** rumqttd, the fastest MQTT broker that we know of, with a client that is faster still; all it keeps is in memory. */
export const rumqttd: Peer = {
  name: 'rumqttd QoS 1, raw client',
  guarantees: { acked: 'PUBACK when the broker has it in memory', durable: 'no: it writes nothing to disk', encrypted: 'no', checked: 'no; anonymous' },
  missing: () => (program() === null ? 'rumqttd is not installed (cargo install rumqttd)' : null),
  versions: () => `rumqttd ${programVersion(program(), ['--version'], /rumqttd (\S+)/)}`,
  start,
};

async function start(): Promise<RunningPeer> {
  const broker = program();
  if (broker === null) throw new RangeError('rumqttd is missing');
  const folder = folderOf('rumqttd');
  const port = await freePort();
  writeFileSync(join(folder.dir, 'r.toml'), [
    'id = 0', '[router]', 'id = 0', 'max_connections = 100', 'max_outgoing_packet_count = 200', 'max_segment_size = 104857600', 'max_segment_count = 10',
    '[v4.1]', 'name = "v4-1"', `listen = "127.0.0.1:${port}"`, 'next_connection_delay_ms = 1',
    '[v4.1.connections]', 'connection_timeout_ms = 60000', 'max_payload_size = 20480', 'max_inflight_count = 1000', 'dynamic_filters = true', '',
  ].join('\n'));
  const run = (): ReturnType<typeof listening> => listening(broker, ['-q', '-c', join(folder.dir, 'r.toml')], port);
  let child = await run();
  const feed = async (count: number): Promise<number> => {
    const client = await RawMqtt.open(port, 'device');
    const seconds = await client.publishAll('v', payloads(), count, aheadMax);
    client.close();
    return seconds;
  };
  return {
    pid: child.pid ?? 0,
    feed,
    survivors: async () => {
      // A subscriber that is away: for it the broker must keep what it acks.
      const subscriber = await RawMqtt.open(port, 'away', false);
      await subscriber.subscribe('v');
      subscriber.close();
      await feed(survivorsOf);
      await killed(child);
      child = await run();
      const back = await RawMqtt.open(port, 'away', false);
      let found = 0;
      back.take(() => { found += 1; });
      for (let before = -1; before !== found;) {
        before = found;
        await sleep(1000);
      }
      back.close();
      return found;
    },
    end: async () => {
      await killed(child);
      folder.remove();
    },
  };
}
