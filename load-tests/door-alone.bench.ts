import { startIngest } from '../app/ingest.js';
import { Custodian } from '../app/custodian.js';
import { openFolder } from '../app/log.js';
import { Sealers } from '../app/sealers.js';
import { loadConfig } from '../core/config.js';
import { silentJournal } from '../core/journal.js';
import { PolicyEngine } from '../security/policy.js';
import { readPolicyFiles } from '../security/policy-files.js';

/**
 * `node door-alone.bench.js DIR`: the devices' door on a data folder that the program has left, with its registry, its keys and its log, and
 * nothing that works the log off; so a backlog is what devices really sent, in the blocks that the door made of it. Prints {"ingest": url}.
 */
const [dir = ''] = process.argv.slice(2);
const config = loadConfig({ environment: {}, cwd: dir, overrides: { data_dir: dir, ingest_port: 0 } });
const custodian = await Custodian.open({ dir, audit: { record: () => Promise.resolve() } });
const log = await openFolder(config, silentJournal);
const writer = await log.writer('ingest', { thread: true });
const server = await startIngest(config, new Map([[0, writer]]), custodian, new Sealers(custodian), new PolicyEngine(readPolicyFiles()), silentJournal, { admitted: () => Promise.resolve(), refused: () => undefined });
process.stdout.write(`${JSON.stringify({ ingest: server.url })}\n`);
process.once('SIGTERM', () => void shut());

async function shut(): Promise<void> {
  await server.stop();
  await writer.close();
  await log.close();
  await custodian.close();
  process.exit(0);
}
