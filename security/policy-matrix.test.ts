import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PolicyEngine, type PolicyRequest, type Value } from './policy.js';
import { readPolicyFiles } from './policy-files.js';

/**
 * Who may do what, written from the words of docs/security.md and not from the policies. Every cell of
 * role × action × relation × consent × purpose is asked of the policies and must come out as it stands here.
 */
const roles = ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient', 'service', 'demo', 'nobody-knows'] as const;
const purposes = ['treatment', 'research', 'operations', 'self', 'curiosity'] as const;
const consents = ['none', 'given', 'withdrawn'] as const;
/** How the asker and the patient are tied. */
const ties = ['none', 'named', 'another named', 'person', 'team', 'organisation', 'emergency', 'emergency over', 'emergency without reason'] as const;
const studies = ['none', 'member', 'another', 'every'] as const;

interface Cell {
  readonly role: (typeof roles)[number];
  readonly purpose: (typeof purposes)[number];
  readonly consent: (typeof consents)[number];
  readonly tie: (typeof ties)[number];
  readonly study: (typeof studies)[number];
}
type Expected = (cell: Cell) => boolean;

const is = (...allowed: ReadonlyArray<Cell['role']>): Expected => ({ role }) => allowed.includes(role);
const careTies: ReadonlyArray<Cell['tie']> = ['named', 'person', 'team', 'organisation'];

/** Seeing that a patient is there: who treats and is tied, or has an open emergency; a demo guest and a patient for whom the token names. */
const see: Expected = ({ role, purpose, tie, consent }) => {
  if (role === 'demo') return tie === 'named';
  if (role === 'patient') return tie === 'named' && purpose === 'self';
  void consent;
  return role === 'clinician' && purpose === 'treatment' && (careTies.includes(tie) || tie === 'emergency');
};
/** Reading is the same, unless the patient objected: only an emergency is above that, and the patient's own reading. */
const read: Expected = (cell) => see(cell) && (cell.consent !== 'withdrawn' || cell.tie === 'emergency' || cell.role === 'patient');
/** And once more for research on the identified record: who is tied, with the patient's word. */
const readRecord: Expected = (cell) => read(cell) || (cell.role === 'clinician' && cell.purpose === 'research' && cell.consent === 'given' && careTies.includes(cell.tie));
/** At the patient's request, by who treats and is tied; an emergency is no request. */
const handOver: Expected = (cell) => cell.role === 'clinician' && cell.purpose === 'treatment' && cell.consent !== 'withdrawn' && careTies.includes(cell.tie);
const ownPatient: Expected = ({ role, tie }) => role === 'patient' && tie === 'named';
const either = (...rules: readonly Expected[]): Expected => (cell) => rules.some((rule) => rule(cell));

/** Erasure and legal holds: who is bounded, as everybody in this matrix is, for the patients that the bound names. */
const erasing: Expected = (cell) => is('admin', 'compliance')(cell) && cell.tie === 'named';

const patientTable: Readonly<Record<string, Expected>> = {
  seePatient: see,
  readRecord,
  watchRecord: read,
  exportRecord: handOver,
  takeOwnRecord: ({ role, tie, purpose }) => role === 'patient' && tie === 'named' && purpose === 'self',
  breakGlass: ({ role, purpose }) => role === 'clinician' && purpose === 'treatment',
  addRelation: is('admin'),
  endRelation: is('admin'),
  listRelations: either(is('admin', 'compliance'), ownPatient),
  giveConsent: either(is('admin'), ownPatient),
  withdrawConsent: either(is('admin'), ownPatient),
  listConsents: either(is('admin', 'compliance'), ownPatient),
  seeErasure: erasing,
  erasePatient: erasing,
  listHolds: erasing,
  placeHold: erasing,
  releaseHold: erasing,
  readPatientKeys: erasing,
  rotatePatientKey: (cell) => is('admin')(cell) && cell.tie === 'named',
};

const counted = is('researcher', 'clinician', 'engineer', 'admin', 'compliance', 'demo');
const systemTable: Readonly<Record<string, Expected>> = {
  readStatus: counted,
  readLedger: counted,
  readChannels: is('engineer', 'admin', 'demo'),
  listTopics: is('engineer', 'admin'),
  listDevices: is('engineer', 'admin', 'clinician', 'demo'),
  seeEveryDevice: is('engineer', 'admin'),
  seePatientOfDevice: is('admin', 'clinician', 'demo'),
  enrolDevice: is('admin'),
  makeDeviceCode: is('admin'),
  bindDevice: is('admin'),
  listPatients: is('admin', 'clinician', 'demo'),
  seeEveryPatient: is('admin'),
  addPatient: is('admin'),
  listBreakGlass: is('admin', 'compliance'),
  reviewBreakGlass: is('admin', 'compliance'),
  readAudit: is('admin', 'compliance'),
  listErasures: is('admin', 'compliance'),
  askErasure: is('admin', 'compliance'),
  decideErasure: is('admin', 'compliance'),
  readKeystore: is('admin', 'compliance'),
  // From this machine only; everybody in this matrix is remote, and bounded.
  rotateKeystore: () => false,
  listOwnAccesses: ({ role, purpose }) => role === 'patient' && purpose === 'self',
  listStudies: is('researcher', 'admin'),
  addStudy: is('admin'),
  // An administrator's who is bounded neither in studies nor in patients; nobody in this matrix is bounded in no patients.
  createToken: () => false,
  addUser: () => false,
  listUsers: () => false,
  changeUser: () => false,
  listServices: () => false,
  addService: () => false,
  changeService: () => false,
  // The one in this matrix is a token.
  endOwnSession: () => false,
  changeOwnPassword: () => false,
  setOwnSecondFactor: () => false,
  revokeToken: is('admin'),
};
const otherTable: Readonly<Record<string, readonly [type: 'Topic' | 'Device' | 'Dataset', Expected]>> = {
  readTopic: ['Topic', is('engineer', 'admin')],
  commandDevice: ['Device', is('engineer', 'admin')],
  setDeviceState: ['Device', is('admin')],
  readDataset: ['Dataset', ({ role, purpose, study }) => role === 'researcher' && purpose === 'research' && (study === 'member' || study === 'every')],
  seeStudy: ['Dataset', ({ role, purpose, study }) => (role === 'admin' || (role === 'researcher' && purpose === 'research')) && (study === 'member' || study === 'every')],
  enrolMember: ['Dataset', ({ role, study }) => role === 'admin' && (study === 'member' || study === 'every')],
};

const me = 'token:me';
const now = 1_700_000_000_000_000;
const studiesOf: Readonly<Record<Cell['study'], readonly string[]>> = { none: [], member: ['x', 'ward'], another: ['x'], every: ['*'] };

function requestOf(action: string, type: string, { role, purpose, consent, tie, study }: Cell): PolicyRequest {
  const patients = tie === 'named' ? ['q', 'p'] : tie === 'another named' ? ['q'] : [];
  const person = { id: me, kind: 'token', role, careTeams: ['icu'], studies: studiesOf[study], patients, organisation: 'hospital' };
  const attributes: Readonly<Record<string, Readonly<Record<string, Value>>>> = {
    System: {}, Topic: { name: 'vitals.raw' }, Device: { state: 'active' }, Dataset: { study: 'ward' },
    Patient: { patient: 'p', people: ['token:other', ...(tie === 'person' ? [me] : [])], careTeams: ['er', ...(tie === 'team' ? ['icu'] : [])], organisations: ['clinic', ...(tie === 'organisation' ? ['hospital'] : [])] },
  };
  const until = { emergency: now + 1, 'emergency over': now, 'emergency without reason': now + 1 }[tie as string];
  const breakGlass = until === undefined ? {} : { breakGlass: { reasoned: tie !== 'emergency without reason', until } };
  return { principal: { type: 'Person', id: me, attributes: person }, action, resource: { type, id: 'it', attributes: attributes[type] ?? {} }, context: { purpose, consent, network: 'remote', now, ...breakGlass } };
}

function* cells(patients: boolean): Generator<Cell> {
  for (const role of roles) {
    for (const purpose of purposes) {
      for (const consent of patients ? consents : (['none'] as const)) {
        for (const tie of patients ? ties : (['none'] as const)) {
          for (const study of patients ? (['none'] as const) : studies) yield { role, purpose, consent, tie, study };
        }
      }
    }
  }
}

test('[DENY] every cell of role × action × relation × consent × purpose comes out as the table says', (t) => {
  const engine = new PolicyEngine(readPolicyFiles());
  const rows: Array<readonly [string, string, Expected]> = [
    ...Object.entries(patientTable).map(([action, expected]) => [action, 'Patient', expected] as const),
    ...Object.entries(systemTable).map(([action, expected]) => [action, 'System', expected] as const),
    ...Object.entries(otherTable).map(([action, [type, expected]]) => [action, type, expected] as const),
  ];
  assert.deepEqual([...rows.map(([action]) => action), 'streamFrames'].sort(), [...engine.actions].sort(), 'every action of the schema has its row');
  let asked = 0;
  let allowed = 0;
  const wrong: string[] = [];
  for (const [action, type, expected] of rows) {
    for (const cell of cells(type === 'Patient')) {
      const decision = engine.decide(requestOf(action, type, cell));
      asked += 1;
      allowed += Number(decision.allowed);
      assert.deepEqual(decision.faults, [], `${action} ${JSON.stringify(cell)}`);
      if (decision.allowed !== expected(cell)) wrong.push(`${action} ${JSON.stringify(cell)}: ${decision.allowed ? 'allowed' : 'denied'} by ${decision.policies.join(', ') || 'nothing'}`);
    }
  }
  assert.deepEqual(wrong.slice(0, 20), []);
  assert.ok(asked >= 5000, `${asked} cells`);
  t.diagnostic(`${asked} cells, ${allowed} of them allowed`);
});

test('[DENY] tokens, users and service accounts are made by an administrator who is bounded in nothing, and no service; sessions are a user\'s', () => {
  const engine = new PolicyEngine(readPolicyFiles());
  for (const role of roles) {
    for (const kind of ['token', 'user', 'service']) {
      for (const studies of [[], ['*'], ['ward']]) {
        for (const patients of [[], ['*'], ['p']]) {
          const attributes = { id: me, kind, role, careTeams: [], studies, patients };
          for (const [action, expected] of [
            ...['createToken', 'addUser', 'listUsers', 'changeUser', 'listServices', 'addService', 'changeService'].map((name) => [name, role === 'admin' && kind !== 'service' && studies[0] === '*' && patients[0] === '*'] as const),
            ...['endOwnSession', 'changeOwnPassword', 'setOwnSecondFactor'].map((name) => [name, kind === 'user' && ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient'].includes(role)] as const),
          ]) {
            const { allowed } = engine.decide({ principal: { type: 'Person', id: me, attributes }, action, resource: { type: 'System', id: 'spamer', attributes: {} }, context: { purpose: 'operations', consent: 'none', network: 'local', now } });
            assert.equal(allowed, expected, `${action} ${JSON.stringify(attributes)}`);
          }
        }
      }
    }
  }
});

test('[DENY] the keystore is rotated from this machine, by an administrator who is bounded in nothing', () => {
  const engine = new PolicyEngine(readPolicyFiles());
  for (const role of roles) {
    for (const studies of [[], ['*'], ['ward']]) {
      for (const patients of [[], ['*'], ['p']]) {
        for (const network of ['local', 'remote', 'elsewhere']) {
          const principal = { type: 'Person', id: me, attributes: { id: me, kind: 'token', role, careTeams: [], studies, patients } };
          const { allowed } = engine.decide({ principal, action: 'rotateKeystore', resource: { type: 'System', id: 'spamer', attributes: {} }, context: { purpose: 'operations', consent: 'none', network, now } });
          assert.equal(allowed, role === 'admin' && studies[0] === '*' && patients[0] === '*' && network === 'local', `${role} ${network}`);
        }
      }
    }
  }
});

test('[DENY] who erases, and holds against it, is an administrator or compliance, for every patient or for those that the bound names', () => {
  const engine = new PolicyEngine(readPolicyFiles());
  for (const role of roles) {
    for (const patients of [[], ['*'], ['p'], ['q'], ['p*']]) {
      for (const action of ['seeErasure', 'erasePatient', 'listHolds', 'placeHold', 'releaseHold']) {
        const asked = requestOf(action, 'Patient', { role, purpose: 'operations', consent: 'none', tie: 'none', study: 'none' });
        const principal = { ...asked.principal, attributes: { ...asked.principal.attributes, patients } };
        const expected = (role === 'admin' || role === 'compliance') && (patients[0] === '*' || patients[0] === 'p');
        assert.equal(engine.decide({ ...asked, principal }).allowed, expected, `${action} ${role} ${patients[0] ?? 'nobody'}`);
      }
    }
  }
});
