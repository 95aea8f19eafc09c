import type { EventEmitter } from 'node:events';
import type { Writable } from 'node:stream';

/** What this comparison uses of `@grpc/grpc-js`, which is installed with tests/servers only. */
export interface Grpc {
  readonly Server: new () => GrpcServer;
  readonly ServerCredentials: { createInsecure(): object; createSsl(roots: null, pairs: ReadonlyArray<{ readonly cert_chain: Buffer; readonly private_key: Buffer }>): object };
  readonly credentials: { createInsecure(): object; createSsl(roots: Buffer): object };
  readonly Client: new (address: string, credentials: object) => GrpcClient;
}
interface GrpcServer {
  addService(methods: typeof service, handlers: { readonly send: (call: EventEmitter, answer: (error: null, total: Buffer) => void) => void }): void;
  bindAsync(address: string, credentials: object, bound: (error: Error | null, port: number) => void): void;
}
interface GrpcClient {
  makeClientStreamRequest(path: string, serialize: (frame: Buffer) => Buffer, parse: (total: Buffer) => Buffer, done: (error: Error | null, total?: Buffer) => void): Writable;
  close(): void;
}

export const bytes = (value: Buffer): Buffer => value;
export const path = '/vitals.Ingest/Send';

/** One method: a stream of frames, answered by how many there were. The frames are bytes already, so there is nothing to serialize. */
export const service = {
  send: { path, requestStream: true, responseStream: false, requestSerialize: bytes, requestDeserialize: bytes, responseSerialize: bytes, responseDeserialize: bytes },
} as const;
