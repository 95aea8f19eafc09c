import { systemClock } from '../core/clock.js';
import type { Config } from '../core/config.js';
import type { Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import type { Federation as FederationPort } from '../query/federation-port.js';
import { Federation } from '../security/federation.js';
import { Issuer } from '../security/issuer.js';
import type { People, SignedIn } from '../security/people.js';
import type { Remote } from './rpc.js';

/** Sign-in at the issuer of the configuration, which says all of it or nothing; null: there is none. */
export function federationOf(config: Config, people: Pick<Remote<People>, 'signInFederated'>, journal: Journal): FederationPort | null {
  const { oidc_issuer: issuer, oidc_client_id: clientId, oidc_client_secret: clientSecret, oidc_roles: roles, public_url: address } = config;
  if (issuer === undefined || clientId === undefined || roles === undefined || address === undefined) return null;
  const settings = {
    issuer, clientId, ...(clientSecret === undefined ? {} : { clientSecret }), scopes: config.oidc_scopes, redirectUri: `${address}/`,
    answerBytesMax: limits.issuerAnswerBytesMax, answerMs: limits.issuerAnswerS * 1000, metadataMs: limits.issuerMetadataS * 1000, restMs: limits.issuerRestS * 1000,
  };
  return new Federation<SignedIn>({ issuer: new Issuer(settings, systemClock, journal), name: config.oidc_name ?? new URL(issuer).host, rolesClaim: config.oidc_roles_claim, roles, people, clock: systemClock });
}
