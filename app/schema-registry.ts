import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import { SchemaRegistry, type SchemaRegistrySettings } from '../log/schema-registry.js';
import { applySubjects, type DeclaredSubject, type SubjectFinding } from '../log/schema-subjects.js';
import { readSchema } from '../schemas/avro.js';
import { schemaFiles, type MessageName } from '../schemas/ids.js';
import { messageOf, version } from '../schemas/types-text.js';
import { readAuthority } from './authority.js';
import { messagesOf, topics } from './topics.js';

/** null: none is configured, and the embedded ids stand alone. @throws SpamerError `config_invalid`: the authority's file. */
export function schemaRegistryOf(config: Config): SchemaRegistrySettings | null {
  const { schema_registry_url: url, schema_registry_user: user, schema_registry_password: password, schema_registry_tls_ca_file: file } = config;
  if (url === undefined) return null;
  const trusted = file === undefined ? {} : { ca: readAuthority('schema_registry_tls_ca_file', file) };
  return { url, ...trusted, ...(user === undefined || password === undefined ? {} : { account: { user, password } }) };
}

/**
 * A subject for each topic, `<topic>-value`; for each message of a topic that holds several, `<topic>-<full name of the record>`,
 * since versions of one subject are versions of one message. Who reads records goes by their ids and asks for neither.
 */
export function declaredSubjects(config: Config): readonly DeclaredSubject[] {
  return topics(config).flatMap(({ name }) => {
    const messages = messagesOf(name);
    return messages.map((message) => ({ subject: `${config.kafka_topic_prefix}${name}-${messages.length === 1 ? 'value' : recordName(message)}`, schemas: schemasOf(message) }));
  });
}

const filesOf = (message: MessageName): ReadonlyArray<readonly [number, string]> => schemaFiles.filter(([, file]) => messageOf(file) === message);
const schemasOf = (message: MessageName): DeclaredSubject['schemas'] =>
  filesOf(message).map(([id, file]) => ({ id, version: version(file), schema: JSON.stringify(readSchema(file)) })).sort((a, b) => a.version - b.version);

function recordName(message: MessageName): string {
  const { namespace, name } = readSchema(filesOf(message)[0]?.[1] ?? message) as { readonly namespace?: string; readonly name?: string };
  return [namespace, name].filter(Boolean).join('.');
}

/** Compares what the schema registry has with what the program declares, and registers what is missing (with `make`). */
export function applyConfiguredSubjects(config: Config, settings: SchemaRegistrySettings, make: boolean): Promise<readonly SubjectFinding[]> {
  return applySubjects(new SchemaRegistry(settings), declaredSubjects(config), make);
}

/** null: every id that records carry is its schema there, and nothing incompatible can join. */
export function faultOfSubjects(findings: readonly SubjectFinding[]): SpamerError | null {
  const drift = findings.filter((finding) => finding.kind === 'drift');
  if (drift.length > 0) {
    const remedy = 'schemas in the registry are not as declared, and nothing changes them: take a registry, or a context of one, of its own (schema_registry_url), set the level back, or run the version of this program that registered the newest';
    return new SpamerError('config_invalid', remedy, { where: drift.map(({ subject, setting, declared, found }) => `${subject}: ${setting} ${found}, declared ${declared}`).join('; ') });
  }
  const missing = findings.filter(({ kind }) => kind === 'missing');
  if (missing.length === 0) return null;
  return new SpamerError('config_invalid', `${missing.length === 1 ? 'a subject is' : `${missing.length} subjects are`} not in the schema registry, or not whole; spamer topics apply registers ${missing.length === 1 ? 'it' : 'them'}`, { where: missing.map(({ subject }) => subject).join(', ') });
}
