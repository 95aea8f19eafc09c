import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { runDevice } from '../device-emulator/device.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { api, freePort, spawnProgram, temporaryFolder, until } from './program.js';
import { enrolPatient } from './record.js';

/** A server for the stores that never ends its first answer, and is never silent for so long that it counts as gone. */
async function hangingServer(): Promise<Server> {
  const server = createServer((socket) => {
    socket.write('HTTP/1.1 200 OK\r\n');
    const dripping = setInterval(() => socket.write('x-wait: 1\r\n'), 500);
    socket.on('error', () => undefined).on('close', () => clearInterval(dripping));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return server;
}

test('[DURABLE] devices are acked while the stores hang; until those are open the program is not ready and says which part isn\'t', { timeout: 120_000 }, async (t) => {
  const folder = temporaryFolder('stores-late');
  const hanging = await hangingServer();
  const [httpPort, ingestPort] = [await freePort(), await freePort()];
  const program = spawnProgram(folder.dir, { httpPort, ingestPort, env: { SPAMER_CLICKHOUSE_URL: `http://127.0.0.1:${(hanging.address() as AddressInfo).port}` } });
  t.after(async () => {
    await program.kill();
    hanging.close();
    folder.remove();
  });
  let ready = false;
  program.ready.then(() => { ready = true; }, () => undefined);
  const http = `http://127.0.0.1:${httpPort}`;
  const token = join(folder.dir, 'admin.token');
  await until('the API to answer', async () => existsSync(token) && (await fetch(new URL('/healthz', http)).then(({ ok }) => ok, () => false)), 90_000);

  const server = api({ http }, folder.dir);
  const { device, privateKey } = await enrolPatient(server);
  // Resolves when every frame is acknowledged.
  const { frames, waiting } = await runDevice({ url: `ws://127.0.0.1:${ingestPort}/v1/stream`, deviceId: device, privateKey, source: synthetic({ seed: 7, durationS: 10 }), speed: 'max' });
  assert.ok(frames > 0 && waiting === 0);

  const answer = await fetch(new URL('/readyz', http));
  const { parts } = (await answer.json()) as { parts: Record<string, boolean> };
  assert.equal(answer.status, 503);
  assert.deepEqual(parts, { ingest: true, log: true, registry: true, anonymize: true, record: true, stores: false });
  await assert.rejects(server.get('/v1/ledger'), /503 .*unreachable/);
  assert.ok(!ready, 'it said that it was ready');
});
