import { device, givenToken, patient, signedIn, stranger } from './doubles.test.js';

/** RFC 7517's own example. */
export const recipient = { kty: 'EC', crv: 'P-256', x: 'MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4', y: '4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM' };

/** A body that fits, of each route that wants one. */
const bodies: Readonly<Record<string, object>> = {
  'POST /v1/patients': { attributes: { sex: 'F' } },
  'POST /v1/devices': { publicKey: { kty: 'EC', crv: 'P-256', x: 'x', y: 'y' } },
  'POST /v1/devices/:device/state': { state: 'suspended' },
  'POST /v1/devices/:device/commands': { name: 'identify' },
  'POST /v1/bindings': { device, patient },
  'POST /v1/studies': { policy: '{}' },
  'POST /v1/studies/:study/members': { patient },
  'POST /v1/device-codes': { patient },
  'POST /v1/sign-in': { login: 'ada', password: 'p' },
  'POST /v1/oidc/start': {},
  'POST /v1/oidc/sign-in': { code: 'c', state: 's', handle: 'h' },
  'POST /v1/refresh': { refreshToken: 'r' },
  'POST /v1/sign-out': {},
  'POST /v1/password': { password: 'p', newPassword: 'q' },
  'POST /v1/second-factor': { password: 'p' },
  'POST /v1/second-factor/recovery-codes': { code: '123456' },
  'POST /v1/second-factor/confirm': { code: '123456' },
  'POST /v1/service-token': { grant_type: 'client_credentials', client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', client_assertion: 'a' },
  'POST /v1/services': { name: 'lab-import', role: 'engineer', publicKey: { kty: 'EC', crv: 'P-256', x: 'x', y: 'y' } },
  'POST /v1/services/:service/state': { state: 'disabled' },
  'POST /v1/services/:service/key': { publicKey: { kty: 'EC', crv: 'P-256', x: 'x', y: 'y' } },
  'POST /v1/users': { login: 'ada', role: 'clinician' },
  'POST /v1/users/:user/state': { state: 'disabled' },
  'POST /v1/erasures': { patient },
  'POST /v1/keystore/rotate': { passphrase: 'battery staple' },
  'POST /v1/patients/:patient/holds': { reference: 'CASE-7' },
  'POST /v1/patients/:patient/relations': { kind: 'team', holder: 'icu-2' },
  'POST /v1/patients/:patient/relations/:relation/end': {},
  'POST /v1/patients/:patient/consents': { purpose: 'study', study: 'ward' },
  'POST /v1/patients/:patient/consents/withdraw': { purpose: 'treatment' },
  'POST /v1/patients/:patient/break-glass': { reason: 'unconscious, nobody to ask' },
  'POST /v1/me/record': { key: recipient },
  'POST /v1/patients/:patient/portable-record': { key: recipient },
  'POST /v1/tokens': { role: 'engineer', subject: 's', expiresInS: 60 },
};

/** What routes that need one are asked. */
const queries: Readonly<Record<string, string>> = {
  'GET /v1/audit/proofs/inclusion': '?index=0&size=1',
  'GET /v1/audit/proofs/consistency': '?first=0&second=1',
};

/** A good request of each line of the access table. */
export function requestOf(rule: string, token?: string): { method: 'GET' | 'POST' | 'DELETE'; url: string; headers: Record<string, string>; payload?: object } {
  const [method, path] = rule.split(' ') as ['GET' | 'POST' | 'DELETE', string];
  const url = path.replace(':patient', patient).replace(':device', device).replace(':user', signedIn.user).replace(':service', givenToken.service).replace(':study', 'ward').replace(':topic', 'vitals.raw').replace(':erasure', patient).replace(':hold', patient).replace(':relation', stranger).replace(':emergency', stranger).replace(':id', 'x').replace(':file', 'none.js') + (queries[rule] ?? '');
  const payload = bodies[rule];
  return { method, url, headers: token === undefined ? {} : { authorization: `Bearer ${token}` }, ...(payload === undefined ? {} : { payload }) };
}
