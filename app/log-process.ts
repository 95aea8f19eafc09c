import { errorShape, type ErrorShape } from '../core/errors.js';
import { openJournal } from '../core/journal.js';
import type { Log } from '../log/log.js';
import { openConfiguredLog, type OnKafka } from './kafka.js';
import { serveLog } from './log-line.js';

/**
 * The process that has the log on Kafka (decision 0053): the client works on the first thread of a process only, and its calls hold
 * threads of Node's pool for as long as a broker is silent, which must not be the pool that everything else needs.
 */

/** What it is told: what to open, and at the end to close it. */
export type Order = { readonly order: 'open'; readonly config: OnKafka } | { readonly order: 'close' };
/** What it says by itself; all else are answers. */
export type Told = { readonly told: 'ready' } | { readonly told: 'refused' | 'lost'; readonly error: ErrorShape };

/** At once: an exit in good order would wait for calls that wait for a broker. What is answered is written, all else never was promised. */
const die = (): void => void process.kill(process.pid, 'SIGKILL');

const send = (message: unknown, sent: () => void = () => undefined): void => {
  if (process.connected) process.send?.(message, undefined, undefined, sent);
};

async function open(config: OnKafka): Promise<Log | null> {
  try {
    const log = await openConfiguredLog(config, openJournal('log', config.log_level), (error) => send({ told: 'lost', error: errorShape(error) } satisfies Told, die));
    serveLog({ postMessage: (message) => send(message), on: (event, listener) => process.on(event, listener) }, log);
    send({ told: 'ready' } satisfies Told);
    return log;
  } catch (error) {
    send({ told: 'refused', error: errorShape(error) } satisfies Told, die);
    return null;
  }
}

let log: Promise<Log | null> = Promise.resolve(null);
// A signal goes to the whole group, as from a terminal; who started this drains, and needs the log for it.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
process.on('disconnect', die);
process.on('message', (order: Order | { readonly order?: undefined }) => {
  if (order.order === 'open') log = open(order.config);
  if (order.order === 'close') void log.then((opened) => opened?.close()).catch(() => undefined).finally(die);
});
