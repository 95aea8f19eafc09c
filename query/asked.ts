import { isIP } from 'node:net';
import type { FastifyRequest } from 'fastify';
import type { Attributes, Entity } from '../security/policy.js';
import type { ResourceKind } from './actions.js';
import type { Principal, Role, Standing } from './ports.js';

/** A request over HTTP in the words of security/policies/spamer.cedarschema. */

/** The name under which relations and emergency accesses know a principal. */
export const whoIs = ({ kind, id }: Pick<Principal, 'kind' | 'id'>): string => `${kind}:${id}`;

/** Who answers for what a principal makes: the user, or whoever made the token that asks; nothing for the operator of the machine. */
export const issuedBy = ({ kind, id, issuer }: Principal): { readonly issuer?: string } => (kind === 'user' ? { issuer: `user:${id}` } : issuer === undefined ? {} : { issuer });

export function personOf(principal: Principal): Entity {
  const { kind, role, organisation, careTeams, studies, patients } = principal;
  const id = whoIs(principal);
  const attributes: Attributes = { id, kind, role, careTeams: careTeams ?? [], studies: studies ?? [], patients: patients ?? [], ...(organisation === undefined ? {} : { organisation }) };
  return { type: 'Person', id, attributes };
}

export function resourceOf(kind: ResourceKind, name: string, standing: Standing): Entity {
  switch (kind) {
    case 'system': return { type: 'System', id: name, attributes: {} };
    case 'device': return { type: 'Device', id: name, attributes: { state: 'unknown' } };
    case 'dataset': return { type: 'Dataset', id: name, attributes: { study: name } };
    case 'topic': return { type: 'Topic', id: name, attributes: { name } };
    case 'patient': return { type: 'Patient', id: name, attributes: { patient: name, people: standing.people, careTeams: standing.careTeams, organisations: standing.organisations } };
  }
}

export const purposeHeader = 'x-spamer-purpose';
const purposes: Readonly<Record<Role, string>> = {
  clinician: 'treatment', demo: 'treatment', researcher: 'research', patient: 'self',
  engineer: 'operations', admin: 'operations', compliance: 'operations', service: 'operations',
};

/** What for: as the header says, or what the role is there for. A purpose that no policy knows is allowed nothing by it. */
export function purposeOf(request: FastifyRequest, role: Role): string {
  const said = request.headers[purposeHeader];
  if (said === undefined) return purposes[role];
  return typeof said === 'string' && /^[a-z-]{1,32}$/.test(said) ? said : 'unreadable';
}

export function circumstancesOf(request: FastifyRequest, { role }: Principal, standing: Standing, nowUs: number): Attributes {
  const purpose = purposeOf(request, role);
  const { consents, emergencyUntilUs } = standing;
  return {
    purpose,
    consent: purpose === 'research' ? consents.research : consents.treatment,
    network: isLocal(request.ip) ? 'local' : 'remote',
    now: nowUs,
    // Nobody breaks the glass without a reason (query/care.ts), so who has, had one.
    ...(emergencyUntilUs === null ? {} : { breakGlass: { reasoned: true, until: emergencyUntilUs } }),
  };
}

const isLocal = (address: string): boolean => isIP(address) !== 0 && (address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.'));
