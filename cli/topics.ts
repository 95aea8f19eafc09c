import type { Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { action, command, type CommonOptions } from './context.js';
import { table } from './output.js';

/** `spamer topics`: the topics of a log on Kafka. */
export function topics(): Command {
  return command('topics', 'The topics of a log on Kafka or Redpanda.', ['spamer topics apply', 'spamer topics apply --check']).addCommand(apply());
}

function apply(): Command {
  return command('apply', 'Make the topics that are missing, and say where the others differ from what is declared; nothing that is there is changed.', ['spamer topics apply', 'spamer topics apply --check --json'])
    .option('--check', 'make nothing, only compare')
    .action(action<CommonOptions & { check?: boolean }>('topics apply', async ({ output, config }, { check }) => {
      const settings = config();
      const { applyConfiguredTopics, faultOfTopics, isOnKafka } = await import('../app/kafka.js');
      if (!isOnKafka(settings)) throw new SpamerError('config_invalid', 'the log of this configuration is in the data folder and has no topics to make', { where: 'kafka_brokers' });
      const { findings, declared } = await applyConfiguredTopics(settings, check !== true);
      output.answer({ topics: findings, declared }, () => output.say(table(['topic', 'found', 'declared'], findings.map((finding) => (finding.kind === 'drift' ? [finding.topic, `${finding.setting} ${finding.found}`, String(finding.declared)] : [finding.topic, finding.kind, ''])))));
      if (findings.some(({ kind }) => kind === 'as declared')) output.note('Compared of topics that were there: partitions and replicas. Their other settings cannot be read here; docs/operations.md says how to look.');
      const fault = faultOfTopics(findings);
      if (fault !== null) throw fault;
    }));
}
