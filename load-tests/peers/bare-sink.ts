import { open } from 'lmdb';
import uWS from 'uWebSockets.js';
import { encode } from '../../schemas/codec.js';

/**
 * The limit to compare with: uWebSockets and LMDB, group commit, each frame acked after its flush, and nothing else;
 * no authentication, no sealing, no validation, no duplicate check. Speaks enough of the protocol for the same generator.
 * Run as a process of its own: `node bare-sink.js DIR`; prints {"ingest": url}.
 */
const dir = process.argv[2] ?? 'bare-sink-data';
const env = open({ path: dir, encoding: 'binary', keyEncoding: 'binary', overlappingSync: false });

interface Peer { readonly id: number; seq: number; acked: number }
type Socket = uWS.WebSocket<Peer>;
const sockets = new Set<Socket>();
let pending: Array<{ readonly socket: Socket; readonly seq: number; readonly bytes: Buffer }> = [];
let flushing = false;
let lastId = 0;
let key = 0;

async function flush(): Promise<void> {
  if (flushing || pending.length === 0) return;
  flushing = true;
  const batch = pending;
  pending = [];
  await env.batch(() => {
    for (const { bytes } of batch) {
      const position = Buffer.allocUnsafe(8);
      position.writeDoubleBE(key++);
      void env.put(position, bytes, { append: true } as never);
    }
  });
  const last = new Map<Socket, number>();
  for (const { socket, seq } of batch) last.set(socket, seq);
  for (const [socket, seq] of last) if (sockets.has(socket)) socket.send(encode('Ack', { epoch: 1, seq }), true);
  flushing = false;
  if (pending.length > 0) void flush();
}

uWS.App().ws<Peer>('/v1/stream', {
  maxPayloadLength: 1 << 20,
  upgrade: (response, request, context) => {
    response.upgrade<Peer>({ id: ++lastId, seq: 0, acked: 0 }, request.getHeader('sec-websocket-key'), 'spamer.v1', request.getHeader('sec-websocket-extensions'), context);
  },
  open: (socket) => {
    sockets.add(socket);
    socket.send(encode('Hello', { serverTime: Date.now() * 1000, epoch: 0, durableSeq: 0, windowFrames: 4096, windowBytes: 1 << 20, frameBytesMax: 65_536, messageBytesMax: 262_144, batchMs: 0 }), true);
  },
  message: (socket, message) => {
    const bytes = Buffer.from(message.slice(0));
    pending.push({ socket, seq: ++socket.getUserData().seq, bytes });
    if (!flushing) setImmediate(() => void flush());
  },
  close: (socket) => { sockets.delete(socket); },
}).listen('127.0.0.1', 0, (listening) => {
  if (listening === false) process.exit(3);
  process.stdout.write(`${JSON.stringify({ ingest: `ws://127.0.0.1:${uWS.us_socket_local_port(listening)}/v1/stream` })}\n`);
});

