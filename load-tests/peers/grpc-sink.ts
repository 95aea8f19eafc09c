import { readFileSync } from 'node:fs';
import { library } from './peer.js';
import { service, type Grpc } from './grpc-wire.js';

/**
 * A gRPC server that counts the frames of a client stream and answers once, at the end; it keeps nothing.
 * Run as a process of its own: `node grpc-sink.js [CERT KEY]`; prints {"port": number}.
 */
const grpc = library<Grpc>('@grpc/grpc-js');
if (grpc === null) throw new RangeError('the gRPC library is missing');
const [cert, key] = process.argv.slice(2);
const server = new grpc.Server();
server.addService(service, {
  send: (call, answer) => {
    let frames = 0;
    call.on('data', () => { frames += 1; });
    call.on('end', () => {
      const total = Buffer.alloc(8);
      total.writeDoubleLE(frames);
      answer(null, total);
    });
  },
});
const credentials = cert === undefined || key === undefined
  ? grpc.ServerCredentials.createInsecure()
  : grpc.ServerCredentials.createSsl(null, [{ cert_chain: readFileSync(cert), private_key: readFileSync(key) }]);
server.bindAsync('127.0.0.1:0', credentials, (error, port) => {
  if (error !== null) throw error;
  process.stdout.write(`${JSON.stringify({ port })}\n`);
});
