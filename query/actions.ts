/**
 * What everything that can be asked for is called in the policies (security/policies/): the one table [DENY]. A route or command that is
 * not in here is refused, and a test fails for it. 'public' routes carry no data of a person: liveness, counts without identity, the
 * description, the page itself.
 */

/** What the action is done to, and which part of the path names it. */
export type ResourceKind = 'system' | 'patient' | 'device' | 'dataset' | 'topic';

export type Rule = 'public' | readonly [action: string, resource: ResourceKind];

export const access: Readonly<Record<string, Rule>> = {
  'GET /': 'public',
  'GET /assets/:file': 'public',
  'GET /healthz': 'public',
  'GET /readyz': 'public',
  'GET /metrics': 'public',
  'GET /openapi.json': 'public',
  'GET /v1/signals': 'public',
  'POST /v1/demo/session': 'public',
  // Prove themselves by the code, or by the device's own keys.
  'POST /v1/enrol': 'public',
  'POST /v1/devices/self/key': 'public',
  'POST /v1/sign-in': 'public',
  'POST /v1/refresh': 'public',
  'POST /v1/sign-out': ['endOwnSession', 'system'],
  'POST /v1/password': ['changeOwnPassword', 'system'],
  'GET /v1/status': ['readStatus', 'system'],
  'GET /v1/ledger': ['readLedger', 'system'],
  'GET /v1/ledger/channels': ['readChannels', 'system'],
  'POST /v1/device-codes': ['makeDeviceCode', 'system'],
  'GET /v1/devices': ['listDevices', 'system'],
  'POST /v1/devices': ['enrolDevice', 'system'],
  'POST /v1/devices/:device/state': ['setDeviceState', 'device'],
  'POST /v1/devices/:device/commands': ['commandDevice', 'device'],
  'POST /v1/bindings': ['bindDevice', 'system'],
  'GET /v1/patients': ['listPatients', 'system'],
  'POST /v1/patients': ['addPatient', 'system'],
  'GET /v1/patients/:patient/record': ['readRecord', 'patient'],
  'GET /v1/patients/:patient/live': ['watchRecord', 'patient'],
  'GET /v1/patients/:patient/relations': ['listRelations', 'patient'],
  'POST /v1/patients/:patient/relations': ['addRelation', 'patient'],
  'POST /v1/patients/:patient/relations/:relation/end': ['endRelation', 'patient'],
  'GET /v1/patients/:patient/consents': ['listConsents', 'patient'],
  'POST /v1/patients/:patient/consents': ['giveConsent', 'patient'],
  'POST /v1/patients/:patient/consents/withdraw': ['withdrawConsent', 'patient'],
  'POST /v1/patients/:patient/break-glass': ['breakGlass', 'patient'],
  'GET /v1/break-glass': ['listBreakGlass', 'system'],
  'POST /v1/break-glass/:emergency/review': ['reviewBreakGlass', 'system'],
  'GET /v1/erasures': ['listErasures', 'system'],
  // Which patient's it is says the row; the handlers decide again for that patient.
  'GET /v1/erasures/:erasure': ['listErasures', 'system'],
  'GET /v1/erasure-key': ['listErasures', 'system'],
  'POST /v1/erasures': ['askErasure', 'system'],
  'POST /v1/erasures/:erasure/approve': ['decideErasure', 'system'],
  'POST /v1/erasures/:erasure/withdraw': ['decideErasure', 'system'],
  'GET /v1/patients/:patient/holds': ['listHolds', 'patient'],
  'POST /v1/patients/:patient/holds': ['placeHold', 'patient'],
  'DELETE /v1/patients/:patient/holds/:hold': ['releaseHold', 'patient'],
  'GET /v1/audit/key': ['readAudit', 'system'],
  'GET /v1/audit/checkpoint': ['readAudit', 'system'],
  'GET /v1/audit/proofs/inclusion': ['readAudit', 'system'],
  'GET /v1/audit/proofs/consistency': ['readAudit', 'system'],
  'GET /v1/audit/leaves': ['readAudit', 'system'],
  'GET /v1/audit/search': ['readAudit', 'system'],
  'GET /v1/audit/export': ['readAudit', 'system'],
  'GET /v1/studies': ['listStudies', 'system'],
  'POST /v1/studies': ['addStudy', 'system'],
  'POST /v1/studies/:study/members': ['enrolMember', 'dataset'],
  'GET /v1/studies/:study/signals': ['readDataset', 'dataset'],
  'GET /v1/studies/:study/numerics': ['readDataset', 'dataset'],
  'GET /v1/studies/:study/runs': ['readDataset', 'dataset'],
  'GET /v1/studies/:study/aggregates': ['readDataset', 'dataset'],
  'GET /v1/topics': ['listTopics', 'system'],
  'GET /v1/topics/:topic/records': ['readTopic', 'topic'],
  'GET /v1/users': ['listUsers', 'system'],
  'POST /v1/users': ['addUser', 'system'],
  'POST /v1/users/:user/state': ['changeUser', 'system'],
  'POST /v1/users/:user/password': ['changeUser', 'system'],
  'POST /v1/tokens': ['createToken', 'system'],
  'DELETE /v1/tokens/:id': ['revokeToken', 'system'],
};

/** What a device may ask of the ingest port. Decided when it connects; its frames then stand on that (FACTS: a decision per session, not per sample). */
export const ingestActions = { connect: 'streamFrames' } as const;

/**
 * Commands by their words: the actions that they ask the API for, or 'local' when they only touch what the operator's own account can
 * read and write anyway (files, the data folder's checks, another machine's port) or what a device proves by its keys.
 */
export const commandActions: Readonly<Record<string, 'local' | readonly string[]>> = {
  run: 'local',
  demo: 'local',
  doctor: 'local',
  emulate: 'local',
  tail: ['listTopics', 'readTopic'],
  reconcile: ['readLedger', 'readChannels'],
  'patient add': ['addPatient', 'enrolMember'],
  'patient erase': ['askErasure', 'erasePatient'],
  'patient hold': ['listHolds', 'placeHold', 'releaseHold'],
  'device code': ['makeDeviceCode'],
  'device enroll': ['enrolDevice', 'bindDevice'],
  // By the device's own keys, over a public route.
  'device replace-key': 'local',
  'study add': ['addStudy'],
  'study enrol': ['enrolMember'],
  'token create': ['createToken'],
  'erasure approve': ['listErasures', 'seeErasure', 'decideErasure', 'erasePatient'],
  'erasure withdraw': ['decideErasure', 'erasePatient'],
  'erasure list': ['listErasures', 'seeErasure'],
  'erasure key': ['listErasures'],
  'erasure verify': 'local',
  'audit key': ['readAudit'],
  'audit checkpoint': ['readAudit'],
  'audit export': ['readAudit'],
  'audit verify': 'local',
  'pmr export': ['createToken', 'readRecord'],
  'user add': ['addUser'],
  'user list': ['listUsers'],
  'user disable': ['listUsers', 'changeUser'],
  'user enable': ['listUsers', 'changeUser'],
  'user reset-password': ['listUsers', 'changeUser'],
  'relation add': ['addRelation'],
  'relation end': ['endRelation'],
  'relation list': ['listRelations'],
  'consent give': ['giveConsent'],
  'consent withdraw': ['withdrawConsent'],
  'consent list': ['listConsents'],
  'break-glass open': ['breakGlass'],
  'break-glass list': ['listBreakGlass'],
  'break-glass review': ['reviewBreakGlass'],
  'policy test': 'local',
  'policy explain': 'local',
};
