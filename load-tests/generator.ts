import { decode, messageId } from '../schemas/codec.js';
import { schemaIds } from '../schemas/ids.js';
import { openRaw, type RawConnection } from './wire.js';

/** What one connection has to send: messages framed beforehand, and how many frames each holds. */
export interface Load {
  readonly messages: readonly Buffer[];
  readonly framesPerMessage: number;
  readonly bytesPerMessage: number;
}

export interface Sent {
  readonly frames: number;
  readonly seconds: number;
  /** Milliseconds from writing a message to the ack that covers it; one in 64 is measured. */
  readonly latenciesMs: readonly number[];
}

/** Sends all of a load within the window that Hello grants, and resolves when the last frame is acked. Fails on any Nack, loss or step back. */
export async function sendAll(url: string, token: string, load: Load, startSeq = 0): Promise<Sent> {
  const connection = await openRaw(url, token);
  const total = load.messages.length * load.framesPerMessage;
  return new Promise((resolve, reject) => {
    let acked = 0;
    let next = 0;
    let windowMessages = 0;
    let begin = 0;
    const started: number[] = [];
    const latenciesMs: number[] = [];
    const pump = (): void => {
      const limit = Math.min(load.messages.length, Math.floor(acked / load.framesPerMessage) + windowMessages);
      if (next >= limit) return;
      connection.socket.cork();
      while (next < limit) {
        if (next % 64 === 0) started[next / 64] = performance.now();
        connection.socket.write(load.messages[next++] as Buffer);
      }
      connection.socket.uncork();
    };
    const onAck = (seq: number): void => {
      if (seq < acked || seq > next * load.framesPerMessage) return fail(reject, connection, `ack ${seq} after ${acked}, sent ${next * load.framesPerMessage}`);
      const now = performance.now();
      const from = Math.ceil(Math.floor(acked / load.framesPerMessage) / 64);
      for (let mark = from; mark * 64 < Math.floor(seq / load.framesPerMessage); mark++) latenciesMs.push(now - (started[mark] ?? now));
      acked = seq;
      if (acked === total) {
        connection.onClose = () => undefined;
        connection.end();
        return resolve({ frames: total, seconds: (now - begin) / 1000, latenciesMs });
      }
      pump();
    };
    connection.onClose = () => reject(new RangeError(`the server closed the connection at ${acked} of ${total}`));
    connection.onMessage = (message) => {
      const id = messageId(message);
      if (id === schemaIds.Ack) return onAck(decode('Ack', message).seq - startSeq);
      if (id === schemaIds.Nack) return fail(reject, connection, `nack ${decode('Nack', message).code}`);
      if (id !== schemaIds.Hello) return;
      const hello = decode('Hello', message);
      windowMessages = Math.max(1, Math.floor(Math.min(hello.windowFrames / load.framesPerMessage, hello.windowBytes / load.bytesPerMessage)));
      begin = performance.now();
      pump();
    };
  });
}

function fail(reject: (error: Error) => void, connection: RawConnection, what: string): void {
  connection.onClose = () => undefined;
  connection.end();
  reject(new RangeError(what));
}

export function percentile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN;
}
