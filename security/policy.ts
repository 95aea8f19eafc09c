import type * as Cedar from '@cedar-policy/cedar-wasm/nodejs';
import { SpamerError } from '../core/errors.js';
import { cedar } from './cedar.js';
import type { PolicyFiles } from './policy-files.js';

export type Value = string | number | boolean | readonly Value[] | { readonly [name: string]: Value };
export type Attributes = Readonly<Record<string, Value>>;

export interface Entity {
  readonly type: string;
  readonly id: string;
  readonly attributes: Attributes;
}

/** One question, in the words of `policies/spamer.cedarschema`. */
export interface PolicyRequest {
  readonly principal: Entity;
  readonly action: string;
  readonly resource: Entity;
  readonly context: Attributes;
}

export interface PolicyDecision {
  readonly allowed: boolean;
  /** The policies that decided, by their `@id`: permits of an allow, forbids of a deny; none when nothing permits. */
  readonly policies: readonly string[];
  /** What went wrong while deciding, as the library words it; never empty on a deny by fault. Not for the outside: it may quote ids. */
  readonly faults: readonly string[];
}

let instances = 0;

/**
 * Decides by Cedar policies [DENY]. Schema and policies are checked when it is made, and parsed once. A request that does not fit the schema, a policy whose evaluation
 * errs, and anything that the library throws are a deny: Cedar itself would skip an erring `forbid`, and so allow.
 */
export class PolicyEngine {
  readonly files: PolicyFiles;
  readonly #slices: Slices;
  /** Name by action of what the library keeps parsed; each is parsed at the first question, since most are not asked in most runs. */
  readonly #parsed = new Map<string, string>();
  readonly #instance = ++instances;

  /**
   * @param slices what `checkedSlices` gave of these very files
   * @throws SpamerError `config_invalid` that names the file and the place, when a policy does not parse or does not fit the schema
   */
  constructor(files: PolicyFiles, slices: Slices = checkedSlices(files)) {
    this.files = files;
    this.#slices = slices;
  }

  get actions(): readonly string[] {
    return Object.keys(this.#slices);
  }

  decide(request: PolicyRequest): PolicyDecision {
    const slice = Object.hasOwn(this.#slices, request.action) ? this.#slices[request.action] : undefined;
    if (slice === undefined) return { allowed: false, policies: [], faults: ['there is no such action'] };
    let answer: Cedar.AuthorizationAnswer;
    try {
      const name = this.#parsedOf(request.action, slice);
      answer = cedar().statefulIsAuthorized({ ...callOf(request), preparsedSchemaName: name, validateRequest: true, preparsedPolicySetId: name });
    } catch (error) {
      return { allowed: false, policies: [], faults: [error instanceof Error ? error.message : 'the library failed'] };
    }
    if (answer.type === 'failure') return { allowed: false, policies: [], faults: answer.errors.map(({ message }) => message) };
    const { decision, diagnostics } = answer.response;
    const faults = diagnostics.errors.map(({ policyId, error }) => `${policyId}: ${error.message}`);
    return { allowed: decision === 'allow' && faults.length === 0, policies: [...diagnostics.reason].sort(), faults };
  }

  #parsedOf(action: string, { schema, policies }: Slice): string {
    const known = this.#parsed.get(action);
    if (known !== undefined) return known;
    const name = `${this.#instance} ${action}`;
    const answers = [cedar().preparseSchema(name, schema), cedar().preparsePolicySet(name, { staticPolicies: policies })];
    for (const answer of answers) if (answer.type === 'failure') throw invalid(answer.errors[0]?.message ?? 'does not parse');
    this.#parsed.set(action, name);
    return name;
  }
}

/** A request as the library wants it; without attributes an entity is not told of. */
export function callOf({ principal, action, resource, context }: PolicyRequest): Pick<Cedar.AuthorizationCall, 'principal' | 'action' | 'resource' | 'context' | 'entities'> {
  const uid = ({ type, id }: Entity): { type: string; id: string } => ({ type, id });
  const told = ({ attributes, ...entity }: Entity): Cedar.EntityJson => ({ uid: uid({ ...entity, attributes }), attrs: attributes as Record<string, Cedar.CedarValueJson>, parents: [] });
  return {
    principal: uid(principal),
    action: { type: 'Action', id: action },
    resource: uid(resource),
    context: context as Record<string, Cedar.CedarValueJson>,
    entities: [told(principal), told(resource)],
  };
}

interface Slice {
  readonly schema: Cedar.SchemaJson<string>;
  readonly policies: Readonly<Record<string, string>>;
}

/** By action the part of schema and policies that can concern it, which halves a decision's time. Plain JSON. */
export type Slices = Readonly<Record<string, Slice>>;

/** @throws SpamerError `config_invalid` that names the file and the place, when a policy does not parse or does not fit the schema */
export function checkedSlices(files: PolicyFiles): Slices {
  validatePolicies(files);
  const parsed = Object.entries(files.policies).map(([id, text]) => ({ id, text, json: parsedPolicy(id, text) }));
  for (const { id, json } of parsed) refuseOpenForbid(id, json);
  const answer = cedar().schemaToJson(files.schema);
  if (answer.type === 'failure') throw invalid(answer.errors[0]?.message ?? 'the schema does not parse');
  const space = answer.json[''];
  const found: Record<string, Slice> = {};
  for (const [action, declared] of Object.entries(space?.actions ?? {})) {
    // A policy whose scope names other actions only can't have a say, and is left out.
    const concerned = parsed.filter(({ json }) => scopeOf(json)?.has(action) ?? true).map(({ id, text }) => [id, text] as const);
    const types = [...(declared.appliesTo?.principalTypes ?? []), ...(declared.appliesTo?.resourceTypes ?? [])];
    const entityTypes = Object.fromEntries(Object.entries(space?.entityTypes ?? {}).filter(([type]) => types.includes(type)));
    found[action] = { schema: { '': { ...space, entityTypes, actions: { [action]: declared } } }, policies: Object.fromEntries(concerned) };
  }
  return found;
}

function parsedPolicy(id: string, text: string): Cedar.PolicyJson {
  const answer = cedar().policyToJson(text);
  if (answer.type === 'failure') throw invalid(answer.errors[0]?.message ?? 'does not parse', id);
  return answer.json;
}

/** The actions that a policy names; null: it says nothing about the action, or nothing that can be told here. */
function scopeOf({ action: scope }: Cedar.PolicyJson): ReadonlySet<string> | null {
  if (!('entity' in scope || 'entities' in scope)) return null;
  return new Set(('entities' in scope ? scope.entities : [scope.entity]).map((uid) => ('__entity' in uid ? uid.__entity.id : uid.id)));
}

const invalid = (message: string, where?: string): SpamerError => new SpamerError('config_invalid', `policies: ${message}`, where === undefined ? {} : { where });

function validatePolicies({ schema, policies }: PolicyFiles): void {
  const answer = cedar().validate({ schema, policies: { staticPolicies: { ...policies } } });
  if (answer.type === 'failure') throw invalid(answer.errors[0]?.message ?? 'do not parse');
  const first = answer.validationErrors[0];
  if (first !== undefined) throw invalid(first.error.message, first.policyId);
}

/** A `forbid … when { x has y }` ends when y is left out, which would turn a deny into an allow. `unless { x has y … }` is the safe way round. */
function refuseOpenForbid(id: string, { effect, conditions }: Cedar.PolicyJson): void {
  const open = effect === 'forbid' && conditions.some(({ kind, body }) => kind === 'when' && JSON.stringify(body).includes('"has":'));
  if (open) throw invalid('a forbid must not ask `has` in its `when`: leaving that attribute out would end it; say `unless` instead', id);
}
