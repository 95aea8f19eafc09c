import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/**
 * As much of MQTT 3.1.1 as this comparison needs, without a library: the `mqtt` client costs more than some brokers do. Packets are written beforehand
 * and sent back to back. Of a broker only packets of less than 128 bytes are read, and all that are sent here are that short.
 */
const types = { connack: 2, publish: 3, puback: 4, suback: 9 } as const;

const text = (value: string): Buffer => Buffer.concat([Buffer.from([value.length >> 8, value.length & 0xff]), Buffer.from(value)]);
const packet = (first: number, ...parts: readonly Buffer[]): Buffer => {
  const body = Buffer.concat(parts);
  if (body.length > 127) throw new RangeError('a packet of this comparison is short');
  return Buffer.concat([Buffer.from([first, body.length]), body]);
};
const id = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff]);

const connectPacket = (client: string, clean: boolean): Buffer => packet(0x10, text('MQTT'), Buffer.from([4, clean ? 2 : 0, 0, 60]), text(client));
const publishPacket = (topic: string, at: number, payload: Buffer): Buffer => packet(0x32, text(topic), id(at), payload);
const pubackOf = (publish: Buffer): Buffer => {
  const topicLength = publish.readUInt16BE(2);
  return packet(0x40, publish.subarray(4 + topicLength, 6 + topicLength));
};

export class RawMqtt {
  readonly #socket: Socket;
  #pending: Buffer = Buffer.alloc(0);
  #onPacket: (type: number, whole: Buffer) => void = () => undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    // A close comes behind it, and whoever waits is told by that.
    socket.on('error', () => undefined);
  }

  /** @param clean false: the broker keeps for this client what comes while it is away. */
  static async open(port: number, client: string, clean = true): Promise<RawMqtt> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    await once(socket, 'connect');
    const mqtt = new RawMqtt(socket);
    const answered = mqtt.#next(types.connack);
    socket.write(connectPacket(client, clean));
    const connack = await answered;
    if (connack[3] !== 0) throw new RangeError(`the broker refused the connection: ${connack[3]}`);
    return mqtt;
  }

  async subscribe(topic: string): Promise<void> {
    const answered = this.#next(types.suback);
    this.#socket.write(packet(0x82, id(1), text(topic), Buffer.from([1])));
    await answered;
  }

  /**
   * Publishes with QoS 1, payload after payload in turns, and resolves with the seconds until each is acked in order.
   * @param inFlight messages without an ack at most; no more than there are payloads, since each has a packet id of its own.
   */
  publishAll(topic: string, payloads: readonly Buffer[], count: number, inFlight: number): Promise<number> {
    const packets = payloads.map((payload, at) => publishPacket(topic, at + 1, payload));
    const inFlightMax = Math.min(inFlight, packets.length);
    const bytes = Buffer.concat(packets);
    const starts = [0];
    for (const one of packets) starts.push((starts.at(-1) ?? 0) + one.length);
    const begin = performance.now();
    return new Promise((resolve, reject) => {
      let [sent, acked] = [0, 0];
      const pump = (): void => {
        while (sent < count && sent - acked < inFlightMax) {
          const from = sent % packets.length;
          const more = Math.min(count - sent, inFlightMax - (sent - acked), packets.length - from);
          this.#socket.write(bytes.subarray(starts[from], starts[from + more]));
          sent += more;
        }
      };
      this.#onPacket = (type, whole) => {
        if (type !== types.puback) return;
        if (whole.readUInt16BE(2) !== (acked % packets.length) + 1) reject(new RangeError(`ack ${whole.readUInt16BE(2)} after ${acked}`));
        if (++acked === count) resolve((performance.now() - begin) / 1000);
        else if (sent - acked <= inFlightMax / 2) pump();
      };
      this.#socket.once('close', () => reject(new RangeError(`the broker closed the connection after ack ${acked}`)));
      pump();
    });
  }

  /** Acks what the broker hands over, and calls `come` for each. */
  take(come: () => void): void {
    this.#onPacket = (type, whole) => {
      if (type !== types.publish) return;
      come();
      this.#socket.write(pubackOf(whole));
    };
  }

  close(): void {
    this.#socket.end(Buffer.from([0xe0, 0]));
  }

  #next(type: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#onPacket = (found, whole) => { if (found === type) resolve(Buffer.from(whole)); };
      this.#socket.once('close', () => reject(new RangeError('the broker closed the connection')));
    });
  }

  #read(chunk: Buffer): void {
    const bytes = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    let at = 0;
    while (bytes.length - at >= 2) {
      const length = (bytes[at + 1] ?? 0) + 2;
      if (length > 129) throw new RangeError('a packet of this comparison is short');
      if (bytes.length - at < length) break;
      this.#onPacket((bytes[at] ?? 0) >> 4, bytes.subarray(at, at + length));
      at += length;
    }
    this.#pending = bytes.subarray(at);
  }
}
