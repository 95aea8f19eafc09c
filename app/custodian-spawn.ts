import type { Config } from '../core/config.js';
import { line, spawnThread, type SpawnedThread, type ThreadApi } from './thread.js';

export type OnDeath = (name: string, error: unknown) => void;

type Lines = Readonly<Record<'main' | 'anonymize' | 'record' | 'people' | 'enrolment' | 'services' | 'erasures' | 'care', ReturnType<typeof line>>>;

/** The custodian's thread with the lines to it; it reads its code, and opens nothing yet. */
export interface SpawnedCustodian {
  readonly thread: SpawnedThread<ThreadApi>;
  readonly lines: Lines;
  readonly forAudit: ReturnType<typeof line>;
}

export function spawnCustodian(config: Config, onDeath: OnDeath): SpawnedCustodian {
  const lines: Lines = { main: line(), anonymize: line(), record: line(), people: line(), enrolment: line(), services: line(), erasures: line(), care: line() };
  const forAudit = line();
  const serving = Object.fromEntries(Object.entries(lines).map(([name, { serving: port }]) => [name, port]));
  return { thread: spawnThread('custodian-thread', { config, ports: { ...serving, audit: forAudit.calling } }, onDeath), lines, forAudit };
}
