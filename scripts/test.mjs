// Runs every compiled test with Node's own runner: `npm test [-- part-of-a-path …]`.
import { readdirSync } from 'node:fs';
import { delimiter } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * What takes longest, first: a long file that is begun last would run alone. Two files run at a time, and these are in such an order that two
 * that start Kafka hardly meet. Node's command line would sort them by name. What is missing here runs after them.
 */
const longest = [
  'tests/roles', 'tests/kills', 'registry/postgres', 'app/erasures', 'tests/kafka-brokers', 'ingest/liar', 'tests/sealed', 'tests/kafka-program', 'tests/cli', 'tests/refused',
  'tests/kafka-refusals', 'app/care', 'log/kafka', 'app/custodian', 'tests/threads', 'tests/migrate', 'load-tests/scenario', 'tests/audit', 'tests/network', 'sinks/clickhouse',
  'tests/clickhouse-program', 'tests/keys', 'tests/roles-from-one', 'tests/postgresql', 'tests/same-answers', 'tests/flaws', 'tests/start', 'app/keyring', 'tests/same-time', 'tests/damaged',
].map((name) => `dist/${name}.test.js`);
const placeOf = (file) => (longest.includes(file) ? longest.indexOf(file) : longest.length);

const wanted = process.argv.slice(2);
const files = readdirSync(`${root}dist`, { recursive: true })
  .map((file) => `dist/${String(file)}`)
  .filter((file) => file.endsWith('.test.js'))
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  .sort()
  .sort((one, other) => placeOf(one) - placeOf(other));
if (files.length === 0) {
  console.error('no test matches');
  process.exit(1);
}
process.chdir(root);
// The optional Kafka client is installed with the tests' servers, not with the program.
process.env.NODE_PATH = [process.env.NODE_PATH, `${root}tests/servers/node_modules`].filter(Boolean).join(delimiter);
// A file that hangs fails by its name, and the others are still told of. The longest takes five minutes on two idle cores, with a hundred kills twenty-five.
const fileMinutes = Number(process.env.SPAMER_KILLS ?? 0) > 10 ? 60 : 15;
run({ files, concurrency: 2, timeout: fileMinutes * 60_000 })
  .on('test:fail', ({ todo }) => {
    if (todo === undefined || todo === false) process.exitCode = 1;
  })
  .compose(new spec())
  .pipe(process.stdout);
