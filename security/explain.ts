import type * as Cedar from '@cedar-policy/cedar-wasm/nodejs';
import { cedar } from './cedar.js';
import { callOf, type PolicyDecision, type PolicyEngine, type PolicyRequest } from './policy.js';

/** A policy that is about this action, and the conditions of it that this request does not meet. */
export interface NearMiss {
  readonly policy: string;
  readonly effect: 'permit' | 'forbid';
  /** Cedar text; what stands in it is what the request lacks. */
  readonly unmet: readonly string[];
}

export interface Explanation {
  readonly decision: PolicyDecision;
  /** Optional attributes of the schema that the request leaves out. */
  readonly absent: readonly string[];
  /** Permits that did not apply, those that lack least first; none on an allow, or when a forbid decided. */
  readonly nearMisses: readonly NearMiss[];
}

/** Why a request is decided as it is: which policies decided, or what every permit that is about it lacks. Slow; for people. */
export function explain(engine: PolicyEngine, request: PolicyRequest): Explanation {
  const decision = engine.decide(request);
  const misses = decision.allowed || decision.policies.length > 0 ? [] : Object.entries(engine.files.policies).flatMap(([id, text]) => missOf(id, text, request));
  return { decision, absent: absentOf(request), nearMisses: misses.sort((a, b) => a.unmet.length - b.unmet.length) };
}

function absentOf({ principal, context }: PolicyRequest): string[] {
  return [
    ...(principal.type === 'Person' && principal.attributes['organisation'] === undefined ? ['principal.organisation'] : []),
    ...(context['breakGlass'] === undefined ? ['context.breakGlass'] : []),
  ];
}

function missOf(id: string, text: string, request: PolicyRequest): NearMiss[] {
  const parsed = cedar().policyToJson(text);
  if (parsed.type === 'failure' || parsed.json.effect !== 'permit') return [];
  const { json } = parsed;
  if (!holds({ ...json, conditions: [] }, request)) return [];
  const parts = json.conditions.flatMap(({ kind, body }) => conjuncts(body).map((part): Cedar.Clause => ({ kind, body: part })));
  const unmet = parts.filter((clause) => !holds({ ...json, conditions: [clause] }, request)).map(textOf);
  return unmet.length === 0 ? [] : [{ policy: id, effect: 'permit', unmet }];
}

function conjuncts(body: Cedar.Expr): Cedar.Expr[] {
  const both = (body as { readonly '&&'?: { readonly left: Cedar.Expr; readonly right: Cedar.Expr } })['&&'];
  return both === undefined ? [body] : [...conjuncts(both.left), ...conjuncts(both.right)];
}

/** Whether a policy alone would permit. */
function holds(policy: Cedar.PolicyJson, request: PolicyRequest): boolean {
  const answer = cedar().isAuthorized({ ...callOf(request), policies: { staticPolicies: { one: { ...policy, effect: 'permit' } } } });
  return answer.type === 'success' && answer.response.decision === 'allow' && answer.response.diagnostics.errors.length === 0;
}

/** The condition as it stands in a policy: the text between the braces. */
function textOf(clause: Cedar.Clause): string {
  const answer = cedar().policyToText({ effect: 'permit', principal: { op: 'All' }, action: { op: 'All' }, resource: { op: 'All' }, conditions: [clause] });
  const text = answer.type === 'success' ? answer.text : '';
  return text.slice(text.indexOf('{') + 1, text.lastIndexOf('}')).replace(/\s+/g, ' ').trim();
}
