import assert from 'node:assert/strict';
import { createDecipheriv, createHmac, hkdfSync, scryptSync } from 'node:crypto';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Custodian } from '../app/custodian.js';
import { topics } from '../app/topics.js';
import { loadConfig } from '../core/config.js';
import { uuidText, type PatientId } from '../core/ids.js';
import { silentJournal } from '../core/journal.js';
import { runDevice } from '../device-emulator/device.js';
import { synthetic } from '../device-emulator/synthetic.js';
import { openLmdbLog } from '../log/lmdb.js';
import { openPglite } from '../registry/postgres.js';
import { decode, encodeBody } from '../schemas/codec.js';
import { decodeFrameBodies } from '../schemas/frames.js';
import { api, cli, freePort, startProgram, temporaryFolder, until } from './program.js';
import { assertSame, endable, enrolPatient, openPolicy, readRecord, reconcile, seriesOfFrames, seriesOfSource, type Enrolled } from './record.js';
import { unkept } from '../security/trail.fixture.js';

const patients = Number(process.env['SPAMER_ERASURE_PATIENTS'] ?? 50);
const passphrase = 'correct horse battery staple';

/*
 * A decryptor of its own: written from docs/security.md with node:crypto alone, for whoever holds the files and the passphrase.
 */
interface Node { readonly depth: number; readonly index: number; readonly key: Buffer }

const bytesOf = (text: unknown): Buffer => Buffer.from(String(text), 'base64url');

function gcm(key: Buffer, nonce: Buffer, aad: Buffer, sealed: Buffer, tag: Buffer): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
  decipher.setAAD(aad);
  decipher.setAuthTag(tag);
  return Buffer.concat([decipher.update(sealed), decipher.final()]);
}

function nodesOf(keystoreFile: string): Node[] {
  const file = JSON.parse(readFileSync(keystoreFile, 'utf8')) as { version: number; id: string; number: number; previous: string | null; kek: Record<string, string | number>; nonce: string; sealed: string; tag: string };
  const { kek } = file;
  const stretched = scryptSync(passphrase, bytesOf(kek['salt']), 32, { N: Number(kek['N']), r: 8, p: 1, maxmem: 512 * 1024 * 1024 });
  const kekKey = Buffer.from(hkdfSync('sha512', stretched, Buffer.alloc(0), 'spamer keystore v1', 64)).subarray(0, 32);
  const wrapped = bytesOf(kek['wrapped']);
  const dataKey = gcm(kekKey, bytesOf(kek['nonce']), Buffer.from(`spamer keystore v2 ${file.id} ${file.number}`), wrapped.subarray(0, 32), wrapped.subarray(32));
  const head = Buffer.from(JSON.stringify({ version: file.version, id: file.id, number: file.number, previous: file.previous, kek }));
  const content = gcm(dataKey, bytesOf(file.nonce), head, bytesOf(file.sealed), bytesOf(file.tag)).subarray(64);
  return Array.from({ length: content.length / 37 }, (_, at) => {
    const node = content.subarray(at * 37, (at + 1) * 37);
    return { depth: node[0] ?? 0, index: node.readUInt32BE(1), key: node.subarray(5) };
  });
}

/** Down the bits of the slot from the node's own depth, whether or not the node lies above the slot. */
function leafBelow(node: Node, slot: number): Buffer {
  let { key } = node;
  for (const bit of slot.toString(2).padStart(32, '0').slice(node.depth)) key = createHmac('sha256', key).update(Buffer.from([Number(bit)])).digest();
  return key;
}

const above = (node: Node, slot: number): boolean => slot.toString(2).padStart(32, '0').startsWith(node.index.toString(2).padStart(node.depth, '0').slice(node.depth === 0 ? 1 : 0));

function unwrapJwe(jwe: string, wrapKey: Buffer): Buffer | null {
  const [head = '', ...parts] = jwe.split('.');
  const [encryptedKey, nonce, sealed, tag] = parts.map(bytesOf) as [Buffer, Buffer, Buffer, Buffer];
  try {
    const unwrap = createDecipheriv('id-aes256-wrap', wrapKey, Buffer.alloc(8, 0xa6));
    return gcm(Buffer.concat([unwrap.update(encryptedKey), unwrap.final()]), nonce, Buffer.from(head), sealed, tag);
  } catch {
    return null;
  }
}

function openEnvelope(envelope: Buffer, dataKey: Buffer, context: Buffer): Buffer | null {
  try {
    const keys = Buffer.from(hkdfSync('sha512', dataKey, envelope.subarray(22, 38), Buffer.concat([Buffer.from('spamer envelope v1'), envelope.subarray(0, 22)]), 64));
    if (!keys.subarray(32).equals(envelope.subarray(50, 82))) return null;
    return gcm(keys.subarray(0, 32), envelope.subarray(38, 50), Buffer.concat([envelope.subarray(0, 82), context]), envelope.subarray(82, -16), envelope.subarray(-16));
  } catch {
    return null;
  }
}

interface Loot {
  readonly slots: ReadonlyMap<string, number>;
  readonly keys: ReadonlyArray<{ readonly patient: string; readonly jwe: string }>;
  readonly sealed: ReadonlyArray<{ readonly patient: string; readonly envelope: Buffer; readonly context: Buffer; readonly topic: string }>;
}

/** Everything that the files of a data folder hold of patients. */
async function plunder(dir: string): Promise<Loot> {
  const registry = await openPglite(join(dir, 'registry'));
  const slots = await registry.query<{ id: string; slot: number }>('SELECT id, slot::float8 AS slot FROM patients');
  const keys = await registry.query<{ patient: string; jwe: string }>('SELECT patient, jwe FROM data_keys');
  const identities = await registry.query<{ id: string; identity: Uint8Array }>('SELECT id, identity FROM patients WHERE identity IS NOT NULL');
  await registry.close();
  const config = loadConfig({ environment: {}, cwd: dir });
  const log = await openLmdbLog({ dir: join(dir, 'log'), topics: topics(config), extraWriters: ['sinks'], logBytesMax: config.log_bytes_max, journal: silentJournal });
  const sealed: Array<Loot['sealed'][number]> = identities.map(({ id, identity }) => ({ patient: id, envelope: Buffer.from(identity), context: Buffer.from(`spamer identity v1 ${id}`), topic: 'identity' }));
  const kinds = { 'vitals.raw': 'Block', 'pmr.chunks': 'PmrChunk', 'vitals.rejected': 'Rejected', 'vitals.held': 'Held' } as const;
  for (const [topic, kind] of Object.entries(kinds)) {
    for (const { partition, start, end } of (await log.status()).filter((one) => one.topic === topic)) {
      for (let at = start; at < end;) {
        const records = await log.read(topic, partition, at, { maxRecords: 1000, maxBytes: 4 * 1024 * 1024 });
        if (records.length === 0) break;
        for (const record of records) {
          const value = decode(kind, record.value) as { patient: Buffer; sealed: Buffer };
          sealed.push({ patient: uuidText(value.patient), envelope: Buffer.from(value.sealed), context: encodeBody(kind, { ...value, sealed: Buffer.alloc(0) } as never), topic });
        }
        at = (records.at(-1)?.offset ?? at) + 1;
      }
    }
  }
  await log.close();
  return { slots: new Map(slots.map(({ id, slot }) => [id, slot])), keys, sealed };
}

test(`[ERASED] one of ${patients} patients is erased while all stream: to a thief with every file, the passphrase, the current keystore and an old backup nothing of that patient opens`, { timeout: 600_000 }, async (t) => {
  const folder = temporaryFolder('erasure');
  const [dir, backup] = [join(folder.dir, 'data'), join(folder.dir, 'backup')];
  const env = { SPAMER_PASSPHRASE: passphrase, SPAMER_CHUNK_SECONDS: '1', SPAMER_LOG_LEVEL: 'error' };
  // Outside the range of outgoing connections: the devices knock on these ports while nobody listens.
  const ports = { httpPort: await freePort(), ingestPort: await freePort() };
  let program = await startProgram(dir, { env, ...ports });
  const stopDevices = new AbortController();
  t.after(async () => { stopDevices.abort(); await program.kill(); folder.remove(); });
  let server = api(program, dir);
  const played = Array.from({ length: patients }, (_, index) => endable(synthetic({ seed: 100 + index })));
  const codes = [...new Set(played.flatMap(({ source }) => source.signals.map(({ code }) => code)))];
  await server.post('/v1/studies', openPolicy('all', 2, codes));
  const numeric = played.flatMap(({ source }) => source.signals).find(({ kind }) => kind === 'numeric') ?? assert.fail();
  await server.post('/v1/studies', openPolicy('deleting', 2, [numeric.code], 'delete'));
  const enrolled: Enrolled[] = [];
  for (let index = 0; index < patients; index++) enrolled.push(await enrolPatient(server, ['all', 'deleting']));
  const startUs = (Date.now() - 24 * 3600_000) * 1000;
  const victim = enrolled[Math.floor(patients / 3)] as Enrolled;
  const stopVictim = new AbortController();
  stopDevices.signal.addEventListener('abort', () => stopVictim.abort());
  const running = enrolled.map(({ device, privateKey, patient }, index) => runDevice({
    url: program.ingest, deviceId: device, privateKey, source: (played[index] as (typeof played)[number]).source, startUs, backoffMs: 50, signal: patient === victim.patient ? stopVictim.signal : stopDevices.signal,
  }));
  for (const one of running) one.catch(() => undefined);
  const accepted = async (device: string): Promise<number> => (await reconcile(server)).channels.filter((row) => row.device === device).reduce((sum, row) => sum + row.accepted, 0);
  await until('every device has something on disk', async () => new Set((await reconcile(server)).channels.map(({ device }) => device)).size === patients, 120_000);

  // The thief's backup: everything but the keystore, whole, as of a stop. The devices wait and go on.
  assert.equal(await program.stop(), 0);
  mkdirSync(backup);
  for (const name of readdirSync(dir).filter((one) => !one.startsWith('keystore'))) cpSync(join(dir, name), join(backup, name), { recursive: true });
  program = await startProgram(dir, { env, ...ports });
  server = api(program, dir);

  const { token: researcher } = await server.post<{ token: string }>('/v1/tokens', { role: 'researcher', subject: 'researcher', expiresInS: 3600 });
  const patientsOf = async (study: string): Promise<number> => {
    const { signals } = await server.as(researcher).get<{ signals: ReadonlyArray<{ code: number; patients: number }> }>(`/v1/studies/${study}/signals`);
    return signals.find(({ code }) => code === numeric.code)?.patients ?? 0;
  };
  const before = await accepted(victim.device);
  await until('the victim streams on', async () => (await accepted(victim.device)) > before, 60_000);
  await until('both studies have rows of every patient', async () => (await patientsOf('all')) === patients && (await patientsOf('deleting')) === patients, 60_000);
  const added = await server.post<{ password: string }>('/v1/users', { login: 'officer', role: 'compliance' });
  const { token } = await server.post<{ token: string }>('/v1/sign-in', { login: 'officer', password: added.password, newPassword: 'nine small ducks' });
  const { token: alias } = await server.post<{ token: string }>('/v1/tokens', { role: 'compliance', subject: 'another name', expiresInS: 600 });
  const { erasure } = await server.post<{ erasure: string }>('/v1/erasures', { patient: victim.patient });
  await assert.rejects(server.post(`/v1/erasures/${erasure}/approve`, {}), /403/, 'not by the person who asked');
  await assert.rejects(server.as(alias).post(`/v1/erasures/${erasure}/approve`, {}), /403/, 'nor by another token of that person');
  const watched = enrolled.filter(({ patient }) => patient !== victim.patient).slice(0, 3);
  const atErasure = await Promise.all(watched.map(({ device }) => accepted(device)));
  await server.as(token).post(`/v1/erasures/${erasure}/approve`, {});
  await until('the certificate', async () => (await server.get<{ state: string }>(`/v1/erasures/${erasure}`)).state === 'done', 120_000);
  await until('streams go on', async () => (await Promise.all(watched.map(({ device }) => accepted(device)))).every((now, at) => now > (atErasure[at] ?? 0)), 60_000);
  stopVictim.abort();
  for (const one of played) one.end();
  const summaries = await Promise.all(running.filter((_, index) => enrolled[index] !== victim));
  for (const summary of summaries) assert.equal(summary.waiting + summary.dropped + summary.refused, 0, 'every frame of the others was acked');
  await until('books without anything in flight', async () => {
    const { balanced, channels } = await reconcile(server);
    return balanced && channels.every((row) => row.inFlight === 0);
  }, 120_000);
  assert.deepEqual([await patientsOf('all'), await patientsOf('deleting')], [patients, patients - 1], 'rows of the one study are deleted, those of the other stay');
  const lines = Object.fromEntries((await reconcile(server)).studies.map((line) => [line.study, line]));
  const [unlinking, deleting] = [lines['all'] ?? assert.fail(), lines['deleting'] ?? assert.fail()];
  assert.deepEqual([unlinking.balanced, unlinking.erased, unlinking.inFlight], [true, 0, 0]);
  assert.ok(deleting.balanced && deleting.erased > 0 && deleting.inFlight === 0 && deleting.emitted === deleting.stored + deleting.erased, JSON.stringify(deleting));
  // Every device came again after the stop, and each time it was let in is an entry.
  const { rows: connections } = await server.as(token).get<{ rows: ReadonlyArray<{ outcome: string; context: { policies?: string } }> }>('/v1/audit/search?action=device.connect&limit=1000');
  const admitted = connections.filter(({ outcome }) => outcome === 'allow');
  assert.ok(admitted.length >= 2 * patients, `${connections.length} entries`);
  assert.ok(admitted.every(({ context }) => (context.policies ?? '') !== ''), 'and says by which policy');
  await assert.rejects(readRecord(server, victim.patient));
  for (const [index, { patient }] of enrolled.entries()) {
    if (patient === victim.patient) continue;
    const one = played[index] as (typeof played)[number];
    assertSame(seriesOfFrames(await readRecord(server, patient)), await seriesOfSource(one.source, startUs, one.untilUs()), `patient ${index}`);
  }
  const { certificate } = await server.get<{ certificate: string }>(`/v1/erasures/${erasure}`);
  const key = await server.get('/v1/erasure-key');
  writeFileSync(join(folder.dir, 'cert'), certificate);
  writeFileSync(join(folder.dir, 'key'), JSON.stringify(key));
  const verify = (...more: string[]) => cli(dir, ['erasure', 'verify', join(folder.dir, 'cert'), '--key', join(folder.dir, 'key'), ...more]);
  const verified = await verify('--json');
  assert.equal(verified.code, 0, verified.err);
  const said = (JSON.parse(verified.out) as { certificate: { unreadable: { blocks: number; chunks: number }; deleted: ReadonlyArray<{ study: string; rows: number; samples: number }> } }).certificate;
  // What was still on its way when the rows were deleted was never stored, so it is erased and not among the rows deleted.
  const [gone] = said.deleted;
  assert.ok(said.deleted.length === 1 && gone?.study === 'deleting' && gone.rows > 0 && gone.rows === gone.samples && gone.samples <= deleting.erased, JSON.stringify([said.deleted, deleting]));
  assert.match((await verify()).out, new RegExp(`study deleting: ${gone.rows} rows with ${gone.samples} samples deleted; the log may keep copies until \\d{4}-`));
  assert.equal(await program.stop(), 0);

  const nodes = nodesOf(join(dir, 'keystore.json'));
  const [old, current] = [await plunder(backup), await plunder(dir)];
  assert.ok(old.keys.some(({ patient }) => patient === victim.patient), 'the backup has the wrapped keys');
  assert.ok(!current.keys.some(({ patient }) => patient === victim.patient), 'the registry has them no more');
  const counts = { opened: 0, shut: 0 };
  for (const loot of [old, current]) {
    for (const { patient } of enrolled) {
      const slot = loot.slots.get(patient) ?? assert.fail();
      const wraps = [...old.keys, ...current.keys].filter((one) => one.patient === patient);
      const mine = loot.sealed.filter((one) => one.patient === patient);
      assert.ok(mine.length > 0);
      if (patient === victim.patient) {
        assert.ok(!nodes.some((node) => above(node, slot)));
        // Whatever the keystore holds, tried as if it led there, and as the key itself.
        const tried = nodes.flatMap((node) => [node.key, leafBelow(node, slot), ...[...loot.slots.values()].filter((other) => above(node, other)).map((other) => leafBelow(node, other))]);
        for (const { jwe } of wraps) for (const wrapKey of tried) assert.equal(unwrapJwe(jwe, wrapKey), null);
        for (const { envelope, context } of mine) for (const candidate of nodes) assert.equal(openEnvelope(envelope, candidate.key, context), null);
        counts.shut += mine.length;
        continue;
      }
      const dataKeys = wraps.map(({ jwe }) => unwrapJwe(jwe, leafBelow(nodes.find((node) => above(node, slot)) ?? assert.fail(), slot)) ?? assert.fail());
      for (const { envelope, context, topic } of mine) {
        const plain = dataKeys.map((dataKey) => openEnvelope(envelope, dataKey, context)).find((one) => one !== null);
        assert.ok(plain !== null && plain !== undefined, topic);
        if (topic === 'vitals.raw') assert.ok(decodeFrameBodies(plain).length > 0);
        counts.opened += 1;
      }
    }
  }
  assert.equal(said.unreadable.blocks, current.sealed.filter(({ patient, topic }) => patient === victim.patient && topic === 'vitals.raw').length);
  // By our own code, with the old registry beside the current keystore.
  cpSync(join(dir, 'keystore.json'), join(backup, 'keystore.json'));
  const custodian = await Custodian.open({ dir: backup, audit: unkept, passphrase });
  assert.equal(await custodian.current(victim.patient as PatientId), null);
  await assert.rejects(custodian.identity(victim.patient as PatientId));
  for (const { patient } of enrolled) if (patient !== victim.patient) assert.notEqual(await custodian.identity(patient as PatientId), null);
  await custodian.close();
  rmSync(backup, { recursive: true, force: true });
  t.diagnostic(`${counts.opened} sealed things of ${patients - 1} patients opened, ${counts.shut} of the erased one did not; ${gone.rows} rows of a study deleted, ${deleting.erased - gone.samples} samples of it passed over; certificate: ${said.unreadable.blocks} blocks, ${said.unreadable.chunks} chunks`);
});
