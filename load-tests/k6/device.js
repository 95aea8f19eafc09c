// A device as k6 plays it: signs its token, connects, sends frames within the window that Hello grants, watches its acks.
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import { Counter, Trend } from 'k6/metrics';
import { WebSocket } from 'k6/websockets';
import { encodeFrame, messageOf, parse } from './frames.js';

export const metrics = {
  connectMs: new Trend('connect_ms', true),
  ackMs: new Trend('ack_ms', true),
  sent: new Counter('frames_sent'),
  acked: new Counter('frames_acked'),
  samples: new Counter('samples_sent'),
  refused: new Counter('frames_refused'),
  disordered: new Counter('acks_out_of_order'),
  lost: new Counter('frames_lost'),
  closed: new Counter('closed_by_server'),
  failed: new Counter('connections_failed'),
  ungreeted: new Counter('connections_ungreeted'),
};

const text = (value) => encoding.b64encode(JSON.stringify(value), 'rawurl');

export async function tokenOf({ device, key }) {
  const iat = Math.floor(Date.now() / 1000);
  const jti = `${device}-${exec.vu.idInTest}-${iat}-${Math.random()}`;
  const data = `${text({ alg: 'ES256', typ: 'JWT', kid: device })}.${text({ iss: device, sub: device, aud: 'spamer-ingest', iat, exp: iat + 240, jti })}`;
  const signer = await crypto.subtle.importKey('jwk', key, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']);
  const bytes = new Uint8Array(Array.from(data, (letter) => letter.charCodeAt(0)));
  const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: { name: 'SHA-256' } }, signer, bytes);
  return `${data}.${encoding.b64encode(signature, 'rawurl')}`;
}

/**
 * k6 reads from a socket before it has said that the socket is open, and drops what it read so: about one Hello in 16,000 on a busy machine,
 * against a bare server too (internal/js/modules/k6/websockets of 1.8.1: `loop` and `queueMessage`). A device that is open and hears nothing for
 * so long closes and connects again; how often that may be is one of the thresholds.
 */
const greetedMs = 10_000;
const ungreeted = 'ungreeted';

/**
 * Streams until `endMs` (of this connection), then waits for the acks that are missing and closes. Resolves with whether all came.
 * @param frame gives the fields of a frame by its seq.
 * @param perS frames a second; Infinity: as many as the window lets out.
 * @param abrupt closes at the end without waiting, as a device that loses its network.
 */
export async function stream(options) {
  for (;;) {
    const ended = await connection(await tokenOf(options.device), options);
    if (ended !== ungreeted) return ended;
  }
}

function connection(token, { url, frame, perS, endMs, samplesOf, onAnswer, abrupt = false }) {
  const opened = Date.now();
  return new Promise((resolve) => {
    const socket = new WebSocket(url, 'spamer.v1', { headers: { Authorization: `Bearer ${token}` } });
    socket.binaryType = 'arraybuffer';
    const sentAt = new Map();
    let [epoch, next, acked, window, begun, over, ticking, waiting] = [1, 1, 0, 0, 0, false, null, null];
    const stop = () => {
      over = true;
      if (ticking !== null) clearInterval(ticking);
      if (waiting !== null) clearTimeout(waiting);
    };
    const finish = () => {
      if (over) return;
      stop();
      socket.close();
    };
    socket.onopen = () => { waiting = setTimeout(finish, greetedMs); };
    const pump = () => {
      const elapsed = Date.now() - begun;
      if (elapsed >= endMs) {
        if (abrupt || acked === next - 1) finish();
        return;
      }
      const due = perS === Infinity ? Infinity : first + Math.floor((elapsed / 1000) * perS) + 1;
      const bodies = [];
      while (next < due && next - 1 - acked < window && bodies.length < 64) {
        const now = Date.now();
        const fields = frame(next);
        sentAt.set(next, now);
        bodies.push(encodeFrame({ epoch, seq: next, sentAt: now * 1000, ...fields }));
        metrics.samples.add(samplesOf(fields));
        next += 1;
      }
      if (bodies.length === 0) return;
      metrics.sent.add(bodies.length);
      socket.send(messageOf(bodies).buffer);
    };
    let first = 1;
    const answers = {
      Hello: (hello) => {
        clearTimeout(waiting);
        metrics.connectMs.add(Date.now() - opened);
        epoch = Math.max(1, hello.epoch);
        first = hello.seq + 1;
        [next, acked, window, begun] = [first, hello.seq, Math.min(hello.windowFrames, 64), Date.now()];
        ticking = setInterval(pump, 20);
        pump();
      },
      Ack: ({ seq }) => {
        if (seq < acked || seq >= next) metrics.disordered.add(1);
        const now = Date.now();
        for (let at = acked + 1; at <= seq; at++) {
          metrics.ackMs.add(now - (sentAt.get(at) || now));
          sentAt.delete(at);
        }
        metrics.acked.add(Math.max(0, seq - acked));
        acked = Math.max(acked, seq);
        if (perS === Infinity || Date.now() - begun >= endMs) pump();
      },
      Nack: () => metrics.refused.add(1),
      other: () => undefined,
    };
    socket.onmessage = ({ data }) => {
      const said = parse(data);
      answers[said.name](said);
      if (onAnswer !== undefined) onAnswer(said);
    };
    socket.onclose = () => {
      if (begun === 0 && over) {
        metrics.ungreeted.add(1);
        return resolve(ungreeted);
      }
      if (!over) metrics.closed.add(1);
      stop();
      // What an abrupt end leaves unanswered is no loss: a device sends it again.
      if (!abrupt) metrics.lost.add(next - 1 - acked);
      resolve(acked === next - 1);
    };
    socket.onerror = ({ error }) => {
      // k6 says an upgrade that was refused here only, without a close behind it.
      console.error(`connection failed: ${error}`);
      metrics.failed.add(1);
      stop();
      metrics.lost.add(next - 1 - acked);
      resolve(false);
    };
  });
}
