import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** The devices' door on the data folder of a program that is down, and nothing behind it: see `door-alone.bench.ts`. */
export async function withDoorAlone(dir: string, send: (ingest: string) => Promise<unknown>): Promise<void> {
  const door = spawn(process.execPath, [fileURLToPath(new URL('./door-alone.bench.js', import.meta.url)), dir], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(door, 'exit');
  const [line] = (await once(createInterface({ input: door.stdout }), 'line')) as [string];
  try {
    await send((JSON.parse(line) as { ingest: string }).ingest);
  } finally {
    door.kill('SIGTERM');
  }
  const [code] = (await ended) as [number | null];
  if (code !== 0) throw new RangeError(`the door ended with ${code}`);
}
