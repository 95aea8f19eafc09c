// Exit code 0 when the program of this container answers 200 at a path, /readyz or /healthz; what an image without a shell tool checks itself with.
import { readFileSync } from 'node:fs';
import { request as clear } from 'node:http';
import { request as secure } from 'node:https';
import { join } from 'node:path';

const path = process.argv[2] ?? '/readyz';
const { http, certificates } = noted();
const url = new URL(path, http);
// It is known by the certificate that it noted, whatever name that is made out to and whoever issued it.
const request = url.protocol === 'https:' ? secure(url, { rejectUnauthorized: false }) : clear(url);
request.setTimeout(4000, () => request.destroy(new Error('no answer within 4 s')));
request.on('response', (response) => {
  const certificate = response.socket.getPeerCertificate?.().fingerprint256;
  const known = certificate === undefined || certificates === undefined || certificates.includes(certificate);
  if (known && response.statusCode === 200) process.exit(0);
  process.stderr.write(known ? `${path} answers ${response.statusCode}\n` : 'another certificate than the program noted\n');
  process.exit(1);
});
request.on('error', (error) => {
  process.stderr.write(`${path}: ${error.message}\n`);
  process.exit(1);
});
request.end();

/** Where the API listens it has noted itself; before it is up there is no note, and nothing to ask. A process without the API notes nothing. */
function noted() {
  const { SPAMER_ROLES: roles, SPAMER_HTTP_PORT: port = '8080', SPAMER_HTTP_TLS: tls, SPAMER_TLS_CERT_FILE: pair, SPAMER_HTTP_TLS_CERT_FILE: own } = process.env;
  if (roles !== undefined && !roles.split(',').some((role) => role.trim() === 'query')) return { http: `${tls !== 'false' && (pair ?? own) !== undefined ? 'https' : 'http'}://127.0.0.1:${port}` };
  try {
    return JSON.parse(readFileSync(join(process.env.SPAMER_DATA_DIR ?? './data', 'run.json'), 'utf8'));
  } catch {
    process.stderr.write('the program is not up\n');
    process.exit(1);
  }
}
