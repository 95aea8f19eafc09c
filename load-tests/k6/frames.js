// The wire of docs/protocol.md without a library, for k6, which has neither Node's modules nor Buffer. Node runs it too: frames.test.ts
// compares it with the program's own codec.

const ids = { Frame: 1, Hello: 2, Ack: 3, Nack: 4 };

class Writer {
  constructor() {
    this.bytes = new Uint8Array(256);
    this.length = 0;
    this.float = new DataView(new ArrayBuffer(8));
  }

  room(count) {
    if (this.length + count <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(this.bytes.length * 2, this.length + count));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
  }

  /** Avro int and long: zigzag, then base 128. Whole numbers of up to 52 bits, so that twice of them is exact. */
  long(value) {
    this.room(10);
    let rest = value < 0 ? -2 * value - 1 : 2 * value;
    while (rest > 127) {
      this.bytes[this.length++] = (rest % 128) + 128;
      rest = Math.floor(rest / 128);
    }
    this.bytes[this.length++] = rest;
  }

  double(value) {
    this.room(8);
    this.float.setFloat64(0, value, true);
    for (let at = 0; at < 8; at++) this.bytes[this.length++] = this.float.getUint8(at);
  }

  array(items, write) {
    if (items.length > 0) {
      this.long(items.length);
      for (const item of items) write(item);
    }
    this.long(0);
  }

  get done() {
    return this.bytes.slice(0, this.length);
  }
}

/** One frame's body. Waveforms have `samples` (integers), which travel as differences. */
export function encodeFrame({ epoch, seq, sentAt, waveforms = [], numerics = [] }) {
  const out = new Writer();
  out.long(epoch);
  out.long(seq);
  out.long(sentAt);
  out.array(waveforms, ({ code, unit, t0, periodNs, scale, offset, samples }) => {
    for (const value of [code, unit, t0, periodNs]) out.long(value);
    out.double(scale);
    out.double(offset);
    let before = 0;
    out.array(samples, (sample) => {
      out.long(sample - before);
      before = sample;
    });
  });
  out.array(numerics, ({ code, unit, time, value }) => {
    for (const whole of [code, unit, time]) out.long(whole);
    out.double(value);
  });
  out.array([], () => undefined);
  return out.done;
}

/** A message of frames: the Confluent header, and the bodies behind it. */
export function messageOf(bodies) {
  const length = bodies.reduce((sum, body) => sum + body.length, 5);
  const message = new Uint8Array(length);
  message[4] = ids.Frame;
  let at = 5;
  for (const body of bodies) {
    message.set(body, at);
    at += body.length;
  }
  return message;
}

/** What the server says, as far as a load needs it. @returns {{ name: string, epoch?: number, seq?: number, code?: string, windowFrames?: number }} */
export function parse(buffer) {
  const bytes = new Uint8Array(buffer);
  let at = 5;
  const long = () => {
    let [value, factor] = [0, 1];
    for (;;) {
      const byte = bytes[at++];
      value += (byte % 128) * factor;
      if (byte < 128) break;
      factor *= 128;
    }
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  };
  const text = () => {
    const length = long();
    const from = at;
    at += length;
    return String.fromCharCode(...bytes.subarray(from, at));
  };
  const id = bytes[4];
  if (id === ids.Ack) return { name: 'Ack', epoch: long(), seq: long() };
  if (id === ids.Nack) return { name: 'Nack', epoch: long(), seq: long(), code: text() };
  if (id !== ids.Hello) return { name: 'other' };
  long();
  return { name: 'Hello', epoch: long(), seq: long(), windowFrames: long() };
}
