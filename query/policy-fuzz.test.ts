import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FastifyRequest } from 'fastify';
import { randomOf } from '../device-emulator/random.js';
import type { Attributes, Entity, PolicyRequest, Value } from '../security/policy.js';
import { access, type ResourceKind } from './actions.js';
import { circumstancesOf, personOf, purposeHeader, resourceOf } from './asked.js';
import { policy } from './doubles.test.js';
import type { Principal, Standing } from './ports.js';

/** 100,000 and more in CI; the seed is printed, and taken from SPAMER_SEED. */
const requestsMin = Number(process.env['SPAMER_POLICY_REQUESTS'] ?? 5000);
const seed = Number(process.env['SPAMER_SEED'] ?? Date.now() % 1_000_000);

class Chooser {
  readonly #next: () => number;
  constructor(from: number) {
    this.#next = randomOf(from);
  }
  one<T>(of: readonly T[]): T {
    return of[Math.floor(this.#next() * of.length)] as T;
  }
  some<T>(of: readonly T[]): T[] {
    return of.filter(() => this.#next() < 0.3);
  }
  maybe(chance: number): boolean {
    return this.#next() < chance;
  }
}

const roles = ['researcher', 'clinician', 'engineer', 'admin', 'compliance', 'patient', 'service', 'demo'] as const;
const kinds: readonly ResourceKind[] = ['system', 'patient', 'device', 'dataset', 'topic'];
/** What handlers ask besides, of the rows that they show or change. */
const within = ['seePatient patient', 'seeErasure patient', 'erasePatient patient', 'seeEveryPatient system', 'seeEveryDevice system', 'seePatientOfDevice system', 'seeStudy dataset'];
const rules = [...new Set([...Object.values(access).filter((rule) => rule !== 'public').map((rule) => rule.join(' ')), ...within])].map((text) => text.split(' ') as [string, ResourceKind]);
const now = 1_700_000_000_000_000;

interface Asked {
  readonly principal: Principal;
  readonly action: string;
  readonly kind: ResourceKind;
  readonly standing: Standing;
  readonly purpose: string | undefined;
}

function askedBy(choose: Chooser): Asked {
  const [action, kind] = choose.one(rules);
  return {
    principal: {
      kind: choose.one(['token', 'user', 'service'] as const), id: choose.one(['me', 'other']), role: choose.one(roles),
      ...(choose.maybe(0.7) ? { organisation: choose.one(['hospital', 'clinic']) } : {}),
      ...(choose.maybe(0.9) ? { careTeams: choose.some(['icu', 'er']) } : {}),
      ...(choose.maybe(0.9) ? { studies: choose.some(['it', 'ward', '*']) } : {}),
      ...(choose.maybe(0.9) ? { patients: choose.some(['it', 'p', '*']) } : {}),
    },
    action,
    kind: choose.maybe(0.9) ? kind : choose.one(kinds),
    standing: {
      people: choose.some(['token:me', 'user:me', 'user:other']), careTeams: choose.some(['icu', 'er']), organisations: choose.some(['hospital', 'clinic']),
      consents: { treatment: choose.one(['none', 'given', 'withdrawn'] as const), research: choose.one(['none', 'given', 'withdrawn'] as const) },
      emergencyUntilUs: choose.maybe(0.3) ? choose.one([now - 1, now, now + 1]) : null,
    },
    purpose: choose.maybe(0.5) ? choose.one(['treatment', 'research', 'operations', 'self', 'curiosity']) : undefined,
  };
}

function requestOf({ principal, action, kind, standing, purpose }: Asked): PolicyRequest {
  const request = { headers: purpose === undefined ? {} : { [purposeHeader]: purpose }, ip: '127.0.0.1' } as unknown as FastifyRequest;
  return { principal: personOf(principal), action, resource: resourceOf(kind, 'it', standing), context: circumstancesOf(request, principal, standing, now) };
}

const without = <Of extends object>(of: Of, name: string): Of => Object.fromEntries(Object.entries(of).filter(([key]) => key !== name)) as Of;

/** The request with one attribute, or one member of a nested one, left out: every way there is. */
function* cut(request: PolicyRequest): Generator<readonly [string, PolicyRequest]> {
  for (const [path, attributes] of cutAttributes(request.context)) yield [`context.${path}`, { ...request, context: attributes }];
  for (const part of ['principal', 'resource'] as const) {
    for (const [path, attributes] of cutAttributes(request[part].attributes)) yield [`${part}.${path}`, { ...request, [part]: { ...request[part], attributes } satisfies Entity }];
  }
}

function* cutAttributes(attributes: Attributes): Generator<readonly [string, Attributes]> {
  for (const [name, value] of Object.entries(attributes)) {
    yield [name, without(attributes, name)];
    if (Array.isArray(value)) for (const at of (value as Value[]).keys()) yield [`${name}[${at}]`, { ...attributes, [name]: (value as Value[]).filter((_one, index) => index !== at) }];
    else if (typeof value === 'object') for (const [path, inner] of cutAttributes(value as Attributes)) yield [`${name}.${path}`, { ...attributes, [name]: inner }];
  }
}

test('[DENY] leaving out any attribute of any request never turns a deny into an allow', (t) => {
  t.diagnostic(`SPAMER_SEED=${seed} SPAMER_POLICY_REQUESTS=${requestsMin}`);
  const choose = new Chooser(seed);
  let asked = 0;
  let denied = 0;
  let allowed = 0;
  while (asked < requestsMin) {
    const whole = askedBy(choose);
    const request = requestOf(whole);
    asked += 1;
    const decision = policy.decide(request);
    if (decision.allowed) {
      allowed += 1;
      continue;
    }
    denied += 1;
    for (const [path, less] of cut(request)) {
      asked += 1;
      assert.ok(!policy.decide(less).allowed, `without ${path} allowed: ${JSON.stringify(request)}`);
    }
    // The same of what a token says of its holder, before it is put into the policies' words.
    for (const name of ['organisation', 'careTeams', 'studies', 'patients']) {
      if (!(name in whole.principal)) continue;
      asked += 1;
      assert.ok(!policy.decide(requestOf({ ...whole, principal: without(whole.principal, name) })).allowed, `without the principal's ${name} allowed: ${JSON.stringify(whole)}`);
    }
  }
  assert.ok(allowed > 0 && denied > 0, 'a fuzz that meets only one answer shows nothing');
  t.diagnostic(`${asked} requests; ${denied} denied and each cut in every way, ${allowed} allowed`);
});

test('[DENY] a policy that errs is a deny, though Cedar would skip it', async () => {
  const { PolicyEngine } = await import('../security/policy.js');
  const { schema } = policy.files;
  const guarded = '@id("a") permit (principal, action == Action::"readStatus", resource);\n';
  const request: PolicyRequest = { principal: personOf({ kind: 'token', id: 'x', role: 'admin' }), action: 'readStatus', resource: resourceOf('system', 'spamer', { people: [], careTeams: [], organisations: [], consents: { treatment: 'none', research: 'none' }, emergencyUntilUs: null }), context: { purpose: 'operations', consent: 'none', network: 'local', now } };
  assert.ok(new PolicyEngine({ schema, tests: [], policies: { a: guarded } }).decide(request).allowed);
  // Overflow is a fault that no schema can rule out.
  const erring = new PolicyEngine({ schema, tests: [], policies: { a: guarded, b: '@id("b") forbid (principal, action == Action::"readStatus", resource) when { context.now * 9223372036854775807 > 0 };' } });
  const decision = erring.decide(request);
  assert.ok(!decision.allowed && decision.faults.length === 1, JSON.stringify(decision));
});
