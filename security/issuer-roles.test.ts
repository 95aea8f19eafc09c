import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grantOf } from './issuer-roles.js';

const who = { iss: 'https://login.example', sub: 's' };
const rules = [
  { value: 'admins', role: 'admin' },
  { value: 'icu', role: 'clinician', organisation: 'north', careTeams: ['icu'] },
  { value: 'study', role: 'researcher', studies: ['sepsis'] },
];
const role = (claims: object, claim = 'groups'): string | undefined => grantOf({ ...who, ...claims }, claim, rules)?.role;

test('the first rule whose value somebody has decides, in the order of the rules', () => {
  assert.deepEqual(grantOf({ ...who, groups: ['study', 'icu'] }, 'groups', rules), { role: 'clinician', scope: '{"organisation":"north","careTeams":["icu"]}' });
  assert.equal(role({ groups: ['icu', 'admins'] }), 'admin');
  assert.equal(role({ groups: 'study' }), 'researcher', 'a claim that is one text');
});

test('whoever has no value has nothing, whatever shape the claim has', () => {
  for (const groups of [undefined, null, [], ['nurses'], 'ADMINS', 'admins ', ['admin'], [['admins']], { admins: true }, [{ value: 'admins' }], 7, true, ['adm', 'ins'], 'admins,icu']) assert.equal(role({ groups }), undefined, JSON.stringify(groups));
  assert.equal(role({}), undefined);
  assert.equal(role({}, 'constructor.name'), undefined, 'nothing of what every object has');
  assert.equal(grantOf({ ...who, groups: ['Object'] }, '__proto__', rules), null);
});

test('a claim may stand within others, or be named by an address', () => {
  assert.equal(role({ realm_access: { roles: ['icu'] } }, 'realm_access.roles'), 'clinician');
  assert.equal(role({ 'https://hospital.example/groups': ['icu'] }, 'https://hospital.example/groups'), 'clinician');
  assert.equal(role({ 'a.b': ['icu'], a: { b: ['admins'] } }, 'a.b'), 'clinician', 'the whole name goes first');
  assert.equal(role({ realm_access: ['icu'] }, 'realm_access.roles'), undefined);
});
