import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { SpamerError } from '../core/errors.js';
import type { PolicyDecision, PolicyEngine, PolicyRequest, Value } from './policy.js';

/**
 * Tests beside the policies: `*.test.json`, a list of cases. A case names what matters to it; the rest is a token that belongs nowhere, a
 * patient whom nobody is related to, and a local request at time 1000 for treatment without any consent on record.
 */
const value: z.ZodType<Value> = z.lazy(() => z.union([z.string(), z.number(), z.boolean(), z.array(value), z.record(z.string(), value)]));
const attributes = z.record(z.string(), value);
const shape = z.strictObject({
  name: z.string().min(1),
  principal: attributes,
  action: z.string().min(1),
  resource: z.strictObject({ type: z.enum(['System', 'Patient', 'Device', 'Dataset', 'Topic']), attributes: attributes.optional() }),
  context: attributes.optional(),
  expect: z.enum(['allow', 'deny']),
  /** The policy that must have decided. */
  by: z.string().optional(),
});
export type PolicyCase = z.output<typeof shape>;

export interface CaseResult {
  readonly file: string;
  readonly name: string;
  readonly passed: boolean;
  readonly decision: PolicyDecision;
  readonly expected: string;
}

const plainPerson = { id: 'token:someone', kind: 'token', careTeams: [], studies: [], patients: [] };
const plainResources: Readonly<Record<PolicyCase['resource']['type'], Readonly<Record<string, Value>>>> = {
  System: {},
  Patient: { patient: 'p1', people: [], careTeams: [], organisations: [] },
  Device: { state: 'active' },
  Dataset: { study: 's1' },
  Topic: { name: 'vitals.raw' },
};
const plainContext = { purpose: 'treatment', consent: 'none', network: 'local', now: 1000 };

/** @throws SpamerError `config_invalid` that names the file and the place */
export function readCases(path: string): PolicyCase[] {
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    throw new SpamerError('config_invalid', 'the policy tests are not readable JSON', { where: path });
  }
  const parsed = z.array(shape).min(1).safeParse(content);
  if (parsed.success) return parsed.data;
  throw new SpamerError('config_invalid', `the policy tests do not fit: ${parsed.error.issues.map(({ path: at }) => at.join('.')).join(', ')}`, { where: path });
}

export function requestOf({ principal, action, resource, context }: Pick<PolicyCase, 'principal' | 'action' | 'resource' | 'context'>): PolicyRequest {
  const isDevice = principal['state'] !== undefined;
  const told = isDevice ? principal : { ...plainPerson, ...principal };
  return {
    principal: { type: isDevice ? 'Device' : 'Person', id: typeof told['id'] === 'string' ? told['id'] : 'device', attributes: told },
    action,
    resource: { type: resource.type, id: 'it', attributes: { ...plainResources[resource.type], ...resource.attributes } },
    context: { ...plainContext, ...context },
  };
}

export function runCases(engine: PolicyEngine): CaseResult[] {
  return engine.files.tests.flatMap((file) => readCases(file).map((one) => runCase(engine, file, one)));
}

function runCase(engine: PolicyEngine, file: string, one: PolicyCase): CaseResult {
  const decision = engine.decide(requestOf(one));
  const passed = decision.allowed === (one.expect === 'allow') && (one.by === undefined || decision.policies.includes(one.by));
  return { file, name: one.name, passed, decision, expected: one.by === undefined ? one.expect : `${one.expect} by ${one.by}` };
}
