import { SpamerError } from '../core/errors.js';

/**
 * Whether a body has the bytes that its counts and lengths promise. avsc reads an array as long as its count says, past the
 * end of the bytes too, so a damaged record of 40 bytes could fill the heap. This walks the bytes once, makes no objects, and
 * needs no bound but the record's own size: an item takes a byte or more. Frames have a scan of their own (`scan.ts`).
 */
export type Walk = (body: Uint8Array) => void;

/** Avro schema as JSON, as far as the files in `avro/` go. */
type Schema = string | readonly Schema[] | { readonly type: Schema; readonly name?: string; readonly namespace?: string; readonly fields?: ReadonlyArray<{ readonly type: Schema }>; readonly items?: Schema; readonly values?: Schema; readonly size?: number };
type Skip = (at: Place) => void;

class Place {
  readonly bytes: Uint8Array;
  pos = 0;
  readonly #where: string;

  constructor(bytes: Uint8Array, where: string) {
    this.bytes = bytes;
    this.#where = where;
  }

  fail(): never {
    throw new SpamerError('frame_malformed', 'not one whole body of its schema', { where: this.#where });
  }

  skip(bytes: number): void {
    // Also false for NaN.
    if (!(bytes >= 0 && bytes <= this.bytes.length - this.pos)) this.fail();
    this.pos += bytes;
  }

  skipLong(): void {
    const stop = Math.min(this.bytes.length, this.pos + varintBytesMax);
    while (this.pos < stop) if ((this.bytes[this.pos++] as number) < 0x80) return;
    this.fail();
  }

  /** Near 2^64 it is not exact, which no length within the bytes is. */
  long(): number {
    const from = this.pos;
    this.skipLong();
    let zigzag = 0;
    for (let at = this.pos - 1; at >= from; at--) zigzag = zigzag * 128 + ((this.bytes[at] as number) & 0x7f);
    return zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
  }

  /** Items of the next block of an array or map; 0 after the last. */
  block(): number {
    const count = this.long();
    if (count < 0) this.skipLong();
    if (Math.abs(count) > this.bytes.length - this.pos) this.fail();
    return Math.abs(count);
  }
}

const varintBytesMax = 10;
const skipLong: Skip = (at) => at.skipLong();
const skipBytes: Skip = (at) => at.skip(at.long());
const primitives = new Map<string, Skip>([
  ['int', skipLong], ['long', skipLong], ['boolean', (at) => at.skip(1)], ['float', (at) => at.skip(4)], ['double', (at) => at.skip(8)], ['string', skipBytes], ['bytes', skipBytes], ['null', () => undefined],
]);

/**
 * The walk over bodies of one schema. It throws SpamerError `frame_malformed` where the bytes end early or go on after the body.
 * @param where what the error names: the message.
 */
export function walkOf(schema: object, where: string): Walk {
  const skip = skipOf(schema as Schema, new Map());
  return (body) => {
    const at = new Place(body, where);
    skip(at);
    if (at.pos !== body.length) at.fail();
  };
}

function skipOf(schema: Schema, named: Map<string, Skip>): Skip {
  if (typeof schema === 'string') return primitives.get(schema) ?? named.get(schema) ?? unknownType(schema);
  if (Array.isArray(schema)) return union((schema as readonly Schema[]).map((branch) => skipOf(branch, named)));
  const { type, name, namespace, fields, items, values, size } = schema as Exclude<Schema, string | readonly Schema[]>;
  const skip = ((): Skip => {
    if (type === 'record') return sequence((fields ?? []).map((field) => skipOf(field.type, named)));
    if (type === 'array') return list(items === 'long' || items === 'int' ? skipLong : skipOf(items ?? unknownType('array'), named));
    if (type === 'map') return list(sequence([skipBytes, skipOf(values ?? unknownType('map'), named)]));
    if (type === 'enum') return skipLong;
    if (type === 'fixed') return (at) => at.skip(size ?? 0);
    return skipOf(type, named);
  })();
  if (name !== undefined) named.set(name, skip).set(`${namespace ?? 'spamer'}.${name}`, skip);
  return skip;
}

const sequence = (skips: readonly Skip[]): Skip => (at) => {
  for (const skip of skips) skip(at);
};

const union = (branches: readonly Skip[]): Skip => (at) => (branches[at.long()] ?? at.fail())(at);

function list(item: Skip): Skip {
  if (item === skipLong) return longs;
  return (at) => {
    for (let count = at.block(); count > 0; count = at.block()) for (; count > 0; count--) item(at);
  };
}

/** Most bytes of a run are here, and most are varints of one byte. */
const longs: Skip = (at) => {
  const { bytes } = at;
  for (let count = at.block(); count > 0; count = at.block()) {
    for (; count > 0; count--) {
      // Past the end it is undefined, and undefined is not below anything.
      if ((bytes[at.pos] as number) < 0x80) at.pos += 1;
      else at.skipLong();
    }
  }
};

function unknownType(name: string): never {
  throw new SpamerError('internal', 'a schema names a type that it does not hold', { where: name });
}
