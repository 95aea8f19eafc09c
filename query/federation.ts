import { Type } from 'typebox';
import { SpamerError } from '../core/errors.js';
import type { Api } from './api.js';
import type { Federation } from './federation-port.js';
import { noStore, recordedOpening, refusedSignIn, Session, shown, sourceOf } from './people.js';
import type { QueryPorts } from './ports.js';

const tags = ['people'];
const Text = (maxLength: number, description: string) => Type.String({ minLength: 1, maxLength, description });

/** Sign-in at an OpenID Connect issuer, where one is set up. */
export function federationRoutes(api: Api, ports: QueryPorts): void {
  const issuer = (): Federation => {
    if (ports.federation === null) throw new SpamerError('not_found', 'no OpenID issuer is set up here');
    return ports.federation;
  };
  const Methods = Type.Object({ password: Type.Boolean(), issuer: Type.Union([Type.Object({ name: Type.String({ description: 'What people call it.' }) }), Type.Null()]) });
  api.get('/v1/sign-in-methods', { schema: { tags, summary: 'How people may sign in here', response: { 200: Methods } } }, async () => ({ password: true, issuer: ports.federation === null ? null : { name: ports.federation.name } }));

  const begin = Type.Object({}, { additionalProperties: false, examples: [{}] });
  const Begun = Type.Object({
    authorizationUrl: Type.String({ description: 'Where the browser goes; the issuer sends it back to this server\'s page with `code` and `state`, or `error`.' }),
    state: Type.String({ description: 'What it comes back with.' }),
    handle: Type.String({ description: 'Stays with who begins: the sign-in counts together with it only, once, within 10 minutes.' }),
  });
  api.post('/v1/oidc/start', { schema: { tags, summary: 'Begin to sign in at the OpenID issuer', body: begin, response: { 201: Begun } } }, async (request, reply) => reply.code(201).headers(noStore).send(await issuer().begin(sourceOf(request))));

  const body = Type.Object(
    { code: Text(8192, 'As the issuer gave it.'), state: Text(256, 'As the issuer gave it.'), handle: Text(256, 'Of who began.'), iss: Type.Optional(Text(2048, 'As the issuer gave it, if it did (RFC 9207).')) },
    { additionalProperties: false, examples: [{ code: 'SplxlOBeZQQYbYS6WxSbIA', state: 'af0ifjsldkj', handle: '…' }] },
  );
  api.post('/v1/oidc/sign-in', { schema: { tags, summary: 'Sign in with what the OpenID issuer sent back', body, response: { 201: Session } } }, async (request, reply) => {
    const { code, state, handle, iss } = request.body;
    const signedIn = await issuer().signIn({ code, state, handle, ...(iss === undefined ? {} : { iss }), source: sourceOf(request) }).catch((error: unknown) => refusedSignIn(ports, error));
    await recordedOpening(ports, signedIn, 'session.open');
    return reply.code(201).headers(noStore).send(shown(signedIn));
  });
}
