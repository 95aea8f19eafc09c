import type { Command } from 'commander';
import { action, command, type CommonOptions } from './context.js';

/** `spamer doctor`: in one call what costs a newcomer an hour. */
export function doctor(): Command {
  return command('doctor', 'Check configuration, disk, clock, ports and native parts, and say what to do.', ['spamer doctor', 'spamer doctor --json'])
    .action(action<CommonOptions>('doctor', async ({ output, config }) => {
      const settings = config();
      const [{ checkup }, { redacted }] = await Promise.all([import('./checkup.js'), import('../core/config.js')]);
      const findings = await checkup(settings);
      const good = findings.every((finding) => finding.good);
      output.answer({ good, findings, config: redacted(settings) }, () => {
        for (const { check, good: fine, found, remedy } of findings) output.say(`${fine ? 'ok  ' : 'FAIL'} ${check}: ${found}${fine || remedy === undefined ? '' : `\n     → ${remedy}`}`);
      });
      return good ? 0 : 1;
    }));
}
