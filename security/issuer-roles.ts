import type { FederatedPerson } from './federated-users.js';
import type { Claims } from './issuer.js';
import { scopeText, type UserScope } from './people.js';

/** What a value of the claim gives. */
export interface RoleRule {
  readonly value: string;
  readonly role: string;
  readonly organisation?: UserScope['organisation'] | undefined;
  readonly careTeams?: UserScope['careTeams'] | undefined;
  readonly studies?: UserScope['studies'] | undefined;
}

/** Values looked at: nobody is in more groups than an issuer puts into a token. */
const valuesMax = 4096;

/** The first rule whose value is among the claim's; null: none. */
export function grantOf(claims: Claims, claim: string, rules: readonly RoleRule[]): FederatedPerson['grant'] {
  const values = new Set(valuesOf(claims, claim));
  const rule = rules.find(({ value }) => values.has(value));
  return rule === undefined ? null : { role: rule.role, scope: scopeText(rule) };
}

/** A claim of exactly that name, as issuers whose names are addresses have them, else one within others: `realm_access.roles`. */
function valuesOf(claims: Claims, claim: string): readonly string[] {
  const value = Object.hasOwn(claims, claim) ? claims[claim] : claim.split('.').reduce<unknown>((within, name) => (typeof within === 'object' && within !== null && Object.hasOwn(within, name) ? (within as Record<string, unknown>)[name] : undefined), claims);
  const listed: readonly unknown[] = Array.isArray(value) ? value.slice(0, valuesMax) : [value];
  return listed.filter((each) => typeof each === 'string');
}
