import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { openPglite } from './postgres.js';

/** A first start and some commits, each of which says so on standard error at once; for a test that watches what reaches the disk. */
const dir = join(process.argv[2] ?? '', 'registry');
const database = await openPglite(dir);
writeSync(2, 'CREATED\n');
for (let at = 0; at < 20; at++) {
  await database.query('INSERT INTO facts VALUES ($1, $1)', [`fact ${at}`]);
  writeSync(2, 'COMMITTED\n');
  await database.transaction((tx) => tx.query('UPDATE facts SET value = $2 WHERE name = $1', [`fact ${at}`, 'x']));
  writeSync(2, 'COMMITTED\n');
}
await database.script('CHECKPOINT');
writeSync(2, 'CHECKPOINTED\n');
await database.close();
