import { readFileSync } from 'node:fs';
import { makeCertificate, withoutOpenssl } from '../../tests/certificate.js';
import { bytes, path, type Grpc } from './grpc-wire.js';
import { folderOf, killed, library, libraryVersion, notInstalled, payloads, sink, windowed, type Peer, type RunningPeer } from './peer.js';

/** One client stream of `@grpc/grpc-js` into a server that counts, as fast as the stream takes frames. */
export function grpcStream(tls: boolean): Peer {
  return {
    name: `gRPC client stream${tls ? ' over TLS' : ''}`,
    guarantees: { acked: 'one answer at the end of the stream', durable: 'no: frames are counted and dropped', encrypted: tls ? 'on the wire' : 'no', checked: 'no; anonymous' },
    missing: () => (library<Grpc>('@grpc/grpc-js') === null ? notInstalled('@grpc/grpc-js') : tls && withoutOpenssl !== false ? withoutOpenssl : null),
    versions: () => libraryVersion('@grpc/grpc-js'),
    start: () => start(tls),
  };
}

async function start(tls: boolean): Promise<RunningPeer> {
  const grpc = library<Grpc>('@grpc/grpc-js');
  if (grpc === null) throw new RangeError('the gRPC library is missing');
  const folder = folderOf('grpc');
  const files = tls ? makeCertificate(folder.dir, 'grpc') : null;
  const { child, ready } = await sink<{ port: number }>(new URL('./grpc-sink.js', import.meta.url), files === null ? [] : [files.cert, files.key]);
  const credentials = files === null ? grpc.credentials.createInsecure() : grpc.credentials.createSsl(readFileSync(files.cert));
  return {
    pid: child.pid ?? 0,
    feed: (count) => feed(new grpc.Client(`127.0.0.1:${ready.port}`, credentials), count),
    end: async () => {
      await killed(child);
      folder.remove();
    },
  };
}

/** @throws when the server counted another number. */
async function feed(client: InstanceType<Grpc['Client']>, count: number): Promise<number> {
  const frames = payloads();
  const begin = performance.now();
  const total = await new Promise<Buffer>((resolve, reject) => {
    const stream = client.makeClientStreamRequest(path, bytes, bytes, (error, answer) => (error !== null || answer === undefined ? reject(error ?? new RangeError('no answer')) : resolve(answer)));
    windowed(count, (index, done) => stream.write(frames[index % frames.length], done)).then(() => stream.end(), reject);
  });
  const seconds = (performance.now() - begin) / 1000;
  client.close();
  if (total.readDoubleLE(0) !== count) throw new RangeError(`the stream lost frames: ${total.readDoubleLE(0)} of ${count}`);
  return seconds;
}
