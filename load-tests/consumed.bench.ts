import { loadConfig } from '../core/config.js';
import { silentJournal } from '../core/journal.js';
import { openFolder } from '../app/log.js';

/** `node consumed.bench.js DIR`: notes in the log of a stopped program that its stages have read all there is, so that a start finds old data and not a backlog. */
const [dir = ''] = process.argv.slice(2);
const log = await openFolder(loadConfig({ environment: {}, cwd: dir, overrides: { data_dir: dir } }), silentJournal);
const ends = (await log.status()).filter(({ topic }) => topic === 'vitals.raw');
for (const name of ['anonymize', 'record']) {
  const writer = await log.writer(name);
  await writer.commit({ records: [], consumed: ends.map(({ topic, partition, end }) => ({ topic, partition, offset: end })) });
  await writer.close();
}
await log.close();
