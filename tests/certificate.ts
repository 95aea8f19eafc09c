import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:tls';

/** Why a test that needs certificates can't run here; false: it can. */
export const withoutOpenssl = spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed; it makes the certificates';

export interface Files {
  readonly cert: string;
  readonly key: string;
}

const filesIn = (folder: string, name: string): Files => ({ cert: join(folder, `${name}.cert.pem`), key: join(folder, `${name}.key.pem`) });

/** A certificate of its own for 127.0.0.1, valid for `days` from now. */
export function makeCertificate(folder: string, name: string, days = 2): Files {
  const files = filesIn(folder, name);
  const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1'];
  const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', String(days), '-keyout', files.key, '-out', files.cert, ...subject]);
  assert.equal(made.status, 0, made.stderr.toString());
  return files;
}

/** Puts a pair in the place of another as a renewal does: each file at once, one after the other. */
export function install(from: Files, to: Files): void {
  for (const part of ['cert', 'key'] as const) {
    copyFileSync(from[part], `${to[part]}.new`);
    renameSync(`${to[part]}.new`, to[part]);
  }
}

export const inForce = (folder: string): Files => filesIn(folder, 'in-force');

/** The name in the certificate that a port shows to a new connection. */
export function shownBy(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false }, () => {
      resolve(String(socket.getPeerCertificate().subject.CN));
      socket.destroy();
    });
    socket.on('error', reject);
  });
}
