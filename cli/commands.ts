import type { Command } from 'commander';
import { audit } from './audit.js';
import { careCommands } from './care.js';
import { doctor } from './doctor.js';
import { emulate } from './emulate.js';
import { erasure } from './erasure.js';
import { init } from './init.js';
import { keys } from './keys.js';
import { reconcile, tail } from './look.js';
import { migrate } from './migrate.js';
import { pmr } from './pmr.js';
import { policy } from './policy.js';
import { registryCommands } from './registry.js';
import { demo, run } from './run.js';
import { service } from './service.js';
import { topics } from './topics.js';
import { user } from './user.js';

/** Every command, in the order of `--help`. */
export function commands(): Command[] {
  return [demo(), run(), init(), ...registryCommands(), user(), service(), ...careCommands(), emulate(), tail(), reconcile(), pmr(), erasure(), keys(), audit(), policy(), topics(), migrate(), doctor()];
}
