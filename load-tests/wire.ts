import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

/**
 * A WebSocket client for load: it writes messages that were framed beforehand and counts what comes back.
 * The mask is zero, which RFC 6455 allows and which leaves the payload as it is; real devices use `device-emulator`.
 */
export interface RawConnection {
  readonly socket: Socket;
  /** Where it was let in: where it knocked, or where it was sent. */
  readonly url: string;
  /** Called with each message of the server; the buffer is only valid during the call. */
  onMessage: (message: Buffer) => void;
  onClose: () => void;
  end(): void;
}

/** One binary message as it goes over the wire, masked with zeros. */
export function framed(payload: Uint8Array): Buffer {
  const length = payload.byteLength;
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const out = Buffer.alloc(2 + extended + 4 + length);
  out[0] = 0x82;
  out[1] = 0x80 | (extended === 0 ? length : extended === 2 ? 126 : 127);
  if (extended === 2) out.writeUInt16BE(length, 2);
  if (extended === 8) out.writeBigUInt64BE(BigInt(length), 2);
  out.set(payload, 2 + extended + 4);
  return out;
}

/** Sent from one place to another so often in a row, at most. */
const hopsMax = 3;

/**
 * Goes where it is sent (`307`): the token is not used up by then.
 *
 * @param authority PEM of the certificate that a `wss:` address must show
 * @param localAddress where it connects from: one address has some 28,000 ports for one server
 */
export async function openRaw(url: string, token: string, authority?: Buffer, localAddress?: string): Promise<RawConnection> {
  let at = url;
  for (let hops = 0; hops <= hopsMax; hops++) {
    const answer = await knock(at, token, authority, localAddress);
    if (typeof answer !== 'string') return answer;
    at = answer;
  }
  throw new RangeError(`sent on more than ${hopsMax} times`);
}

/** A connection, or the address to which it is sent. */
function knock(url: string, token: string, authority?: Buffer, localAddress?: string): Promise<RawConnection | string> {
  const { protocol, hostname, port, pathname } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = protocol === 'wss:' ? connectTls({ host: hostname, port: Number(port), ca: authority }) : connect({ host: hostname, port: Number(port), noDelay: true, ...(localAddress === undefined ? {} : { localAddress }) });
    if (protocol === 'wss:') socket.setNoDelay(true);
    const connection: RawConnection = { socket, url, onMessage: () => undefined, onClose: () => undefined, end: () => socket.destroy() };
    let pending: Buffer = Buffer.alloc(0);
    let upgraded = false;
    socket.once(protocol === 'wss:' ? 'secureConnect' : 'connect', () => {
      const key = randomBytes(16).toString('base64');
      socket.write(`GET ${pathname} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: spamer.v1\r\nAuthorization: Bearer ${token}\r\n\r\n`);
    });
    socket.on('data', (chunk: Buffer) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      if (!upgraded) {
        const end = pending.indexOf('\r\n\r\n');
        if (end < 0) return;
        if (!pending.toString('latin1', 0, 12).includes('101')) {
          socket.destroy();
          const elsewhere = /^HTTP\/1\.1 307 [^]*?\r\nlocation: *(\S+)\r\n/i.exec(pending.toString('latin1', 0, end + 2))?.[1];
          if (elsewhere !== undefined) return resolve(elsewhere);
          return reject(new RangeError(`upgrade refused: ${pending.toString('latin1', 0, pending.indexOf('\r\n'))}`));
        }
        upgraded = true;
        pending = pending.subarray(end + 4);
        resolve(connection);
        // The caller sets onMessage in the promise's continuation; what came along waits for it.
        setImmediate(() => { pending = drain(pending, connection); });
        return;
      }
      pending = drain(pending, connection);
    });
    socket.once('error', reject);
    // Also before the upgrade: a server that has too many half-open sockets says nothing.
    socket.once('close', () => (upgraded ? connection.onClose() : reject(new RangeError('closed without an answer'))));
  });
}

/** Hands out whole messages and answers pings; returns the rest. */
function drain(buffer: Buffer, connection: RawConnection): Buffer {
  let at = 0;
  while (buffer.length - at >= 2) {
    const opcode = (buffer[at] ?? 0) & 15;
    let length = (buffer[at + 1] ?? 0) & 127;
    let header = 2;
    if (length === 126) {
      if (buffer.length - at < 4) break;
      length = buffer.readUInt16BE(at + 2);
      header = 4;
    } else if (length === 127) {
      if (buffer.length - at < 10) break;
      length = Number(buffer.readBigUInt64BE(at + 2));
      header = 10;
    }
    if (buffer.length - at < header + length) break;
    const payload = buffer.subarray(at + header, at + header + length);
    if (opcode === 1 || opcode === 2) connection.onMessage(payload);
    else if (opcode === 9) connection.socket.write(Buffer.concat([Buffer.from([0x8a, 0x80 | length, 0, 0, 0, 0]), payload]));
    else if (opcode === 8) connection.end();
    at += header + length;
  }
  return at === 0 ? buffer : buffer.subarray(at);
}
