import { Type } from 'typebox';
import { Count, Uuid, readPatient, type Api } from './api.js';
import type { QueryPorts } from './ports.js';
import { rfc3339 } from './times.js';

const tags = ['keys'];
const Version = Type.Object({ number: Type.Integer({ minimum: 1 }), hash: Type.String({ description: 'SHA-256 of the file\'s members, base64url.' }) });
const Seals = Type.Integer({ minimum: 0, description: 'Encryptions, counted before they are done: at least as many as were.' });
const Epoch = Type.Integer({ minimum: 1 });
const Status = Type.Object({
  id: Uuid,
  version: Version,
  kek: Type.String({ description: 'What wraps the keystore: passphrase or vault-transit.' }),
  generatedPassphrase: Type.Boolean({ description: 'The passphrase was generated and lies beside the keystore.' }),
  bytes: Count,
  nodes: Count,
  punctures: Type.Integer({ minimum: 0, description: 'Slots whose wrap key is destroyed.' }),
  sealsPerKeyMax: Type.Integer({ minimum: 1, description: 'A data key that would be used more often is replaced.' }),
  epochs: Type.Array(Type.Object({ epoch: Epoch, keys: Count, seals: Seals, sealsMost: Seals })),
});
const Uses = Type.Object({ patient: Uuid, epochs: Type.Array(Type.Object({ epoch: Epoch, seals: Seals, createdAt: Type.Union([Type.String(), Type.Null()]) })) });
const params = Type.Object({ patient: Uuid });

/** Keys by their names and counts, and their rotation; none leaves the keystore. */
export function keyRoutes(api: Api, { keys }: QueryPorts): void {
  api.get('/v1/keystore', { schema: { tags, summary: 'The keystore\'s version, and how often data keys are used, by epoch', response: { 200: Status } } }, async () => {
    const { epochs, ...status } = await keys.status();
    return { ...status, epochs: epochs.map((row) => ({ ...row })) };
  });
  const body = Type.Object({ passphrase: Type.Optional(Type.String({ minLength: 8, maxLength: 1024, description: 'The new one. Left out: another generated one, or under a key service the next version of its key.' })) }, { additionalProperties: false });
  api.post('/v1/keystore/rotate', { schema: { tags, summary: 'Write the keystore under a new passphrase or key version; asked from this machine only', body, response: { 200: Version } } }, async (request, reply) => {
    const { number, hash } = await keys.rotateKek(request.body.passphrase ?? null);
    return reply.header('cache-control', 'no-store').send({ number, hash });
  });
  api.get('/v1/patients/:patient/keys', { schema: { tags, summary: 'Epochs of a patient\'s data keys', params, response: { 200: Uses } } }, async (request) => {
    const patient = readPatient(request.params.patient);
    return { patient, epochs: (await keys.uses(patient)).map(({ epoch, seals, createdAt }) => ({ epoch, seals, createdAt: createdAt === null ? null : rfc3339(createdAt) })) };
  });
  api.post('/v1/patients/:patient/keys/rotate', { schema: { tags, summary: 'Start a new epoch: what comes from now on is sealed under a new key', params, response: { 200: Type.Object({ patient: Uuid, epoch: Epoch }) } } }, async (request) => {
    const patient = readPatient(request.params.patient);
    return { patient, epoch: (await keys.rotate(patient)).epoch };
  });
}
