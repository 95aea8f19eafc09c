// Runs every compiled test with Node's own runner: `npm test [-- part-of-a-path …]`. Node 20 has no globs on its command line yet.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { delimiter } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const wanted = process.argv.slice(2);
const files = readdirSync(`${root}dist`, { recursive: true })
  .map((file) => `dist/${String(file)}`)
  .filter((file) => file.endsWith('.test.js'))
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  .sort();
if (files.length === 0) {
  console.error('no test matches');
  process.exit(1);
}
// The optional Kafka client is installed with the tests' servers, not with the program.
const env = { ...process.env, NODE_PATH: [process.env.NODE_PATH, `${root}tests/servers/node_modules`].filter(Boolean).join(delimiter) };
// A file that hangs fails by its name, and the others are still told of. The longest takes five minutes on two idle cores, with a hundred kills twenty-five.
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
const fileMinutes = Number(process.env.SPAMER_KILLS ?? 0) > 10 ? 60 : 15;
const bound = major > 20 || minor >= 11 ? [`--test-timeout=${fileMinutes * 60_000}`] : [];
const { status } = spawnSync(process.execPath, ['--test', '--test-reporter=spec', '--test-concurrency=2', ...bound, ...files], { cwd: root, stdio: 'inherit', env });
process.exit(status ?? 1);
