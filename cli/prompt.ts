import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { SpamerError } from '../core/errors.js';

/** Asks a person for lines, on standard error; without a terminal they are read from standard input as they stand there. */
export interface Prompt {
  /** @throws SpamerError `bad_request` when the input has ended, or the person pressed Ctrl-C or Ctrl-D */
  ask(question: string, how?: { readonly hidden: boolean }): Promise<string>;
  close(): void;
}

export function openPrompt(): Prompt {
  const terminal = process.stdin.isTTY && process.stderr.isTTY;
  let muted = false;
  const echo = new Writable({
    write(chunk: Buffer, _encoding, done) {
      if (!muted) process.stderr.write(chunk);
      done();
    },
  });
  const lines = createInterface({ input: process.stdin, output: echo, terminal });
  // Lines that come before they are asked for are kept by the iterator.
  const iterator = lines[Symbol.asyncIterator]();
  lines.on('SIGINT', () => lines.close());
  return {
    ask: async (question, { hidden } = { hidden: false }) => {
      process.stderr.write(`${question}: `);
      muted = hidden;
      const line = await iterator.next().finally(() => {
        muted = false;
        if (hidden || !terminal) process.stderr.write('\n');
      });
      if (line.done === true) throw new SpamerError('bad_request', 'there was no answer', { where: question });
      return line.value;
    },
    close: () => lines.close(),
  };
}
