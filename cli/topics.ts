import type { Command } from 'commander';
import type { AppliedTopics } from '../app/kafka.js';
import type { Config } from '../core/config.js';
import { SpamerError } from '../core/errors.js';
import type { SubjectFinding } from '../log/schema-subjects.js';
import { action, command, type CommonOptions } from './context.js';
import { table, type Output } from './output.js';

/** `spamer topics`: the topics of a log on Kafka, and their schemas. */
export function topics(): Command {
  return command('topics', 'The topics of a log on Kafka or Redpanda, and their schemas.', ['spamer topics apply', 'spamer topics apply --check']).addCommand(apply());
}

interface Applied extends AppliedTopics {
  /** null: there is no schema registry. */
  readonly schemas: readonly SubjectFinding[] | null;
  readonly fault: SpamerError | null;
}

function apply(): Command {
  const summary = 'Make the topics that are missing, register their schemas where there is a schema registry, and say where the others differ from what is declared; nothing that is there is changed.';
  return command('apply', summary, ['spamer topics apply', 'spamer topics apply --check --json'])
    .option('--check', 'make nothing, only compare')
    .action(action<CommonOptions & { check?: boolean }>('topics apply', async ({ output, config }, { check }) => {
      const { findings, declared, schemas, fault } = await applyAll(config(), check !== true);
      output.answer({ topics: findings, declared, schemas }, () => { show(output, findings, schemas); });
      if (fault !== null) throw fault;
    }));
}

/** With a schema registry: no topic is made before the schemas are there, and nothing is registered before the brokers answer. */
async function applyAll(settings: Config, make: boolean): Promise<Applied> {
  const { applyConfiguredTopics, faultOfTopics, isOnKafka } = await import('../app/kafka.js');
  const { applyConfiguredSubjects, faultOfSubjects, schemaRegistryOf } = await import('../app/schema-registry.js');
  if (!isOnKafka(settings)) throw new SpamerError('config_invalid', 'the log of this configuration is in the data folder and has no topics to make', { where: 'kafka_brokers' });
  const registry = schemaRegistryOf(settings);
  const before = await applyConfiguredTopics(settings, make && registry === null);
  if (registry === null) return { ...before, schemas: null, fault: faultOfTopics(before.findings) };
  const schemas = await applyConfiguredSubjects(settings, registry, make);
  const refused = faultOfSubjects(schemas);
  const after = make && refused === null ? await applyConfiguredTopics(settings, true) : before;
  return { ...after, schemas, fault: both(faultOfTopics(after.findings), refused) };
}

function both(one: SpamerError | null, other: SpamerError | null): SpamerError | null {
  if (one === null || other === null) return one ?? other;
  return new SpamerError(one.code, `${one.message} (${one.where ?? ''}); ${other.message}`, { where: other.where ?? '' });
}

function show(output: Output, topicsFound: AppliedTopics['findings'], schemas: Applied['schemas']): void {
  output.say(table(['topic', 'found', 'declared'], topicsFound.map((finding) => [finding.topic, ...cellsOf(finding)])));
  if (schemas === null) return;
  output.say('');
  output.say(table(['subject', 'found', 'declared'], schemas.map((finding) => (finding.kind === 'drift' ? [finding.subject, `${finding.setting} ${finding.found}`, finding.declared] : [finding.subject, finding.kind, '']))));
}

function cellsOf(finding: AppliedTopics['findings'][number]): [found: string, declared: string] {
  if (finding.kind === 'drift') return [`${finding.setting} ${finding.found}`, finding.declared];
  return finding.kind === 'replicas missing' ? [`${finding.inSync} in sync`, `${finding.needed} needed`] : [finding.kind, ''];
}
