import type { Config } from '../core/config.js';
import { faultOf } from '../core/journal.js';
import { Lifecycle } from '../core/lifecycle.js';
import { spawnCustodian } from './custodian-spawn.js';
import type { ProgramOptions, WholeProgram } from './program.js';

/**
 * Starts the program in one process (app/start.ts).
 * @throws SpamerError that says which setting or file is wrong; then everything started is stopped again. Nothing was changed but for
 * what devices had acked by then, when it is the stages, the API or the stores that can't start.
 */
export async function startProgram(config: Config, options: ProgramOptions): Promise<WholeProgram> {
  const { journal } = options;
  const lifecycle = new Lifecycle(journal);
  let fail: () => void = () => undefined;
  const failed = new Promise<void>((resolve) => { fail = resolve; });
  const onDeath = (name: string, error: unknown): void => {
    journal.error('a thread died; stopping, which is safe by [DURABLE]', { stage: name, fault: faultOf(error) });
    fail();
  };
  // It is what a first ack waits for longest: it reads its code while this thread reads its own.
  const custodian = spawnCustodian(config, onDeath);
  try {
    const { startParts } = await import('./start.js');
    return await startParts(config, options, { lifecycle, custodian, onDeath, fail, failed });
  } catch (error) {
    await lifecycle.stop();
    await custodian.thread.stop();
    throw error;
  }
}
