/** Clients that do nothing more, in a process of their own: their sockets are not the server's, in number or in memory. */
import { connect, type Socket } from 'node:net';

export interface Crowd {
  readonly port: number;
  /** What each client sends, and no byte after it; '' for nothing at all. */
  readonly requests: readonly string[];
  /** Waits for the answer's first bytes before the client counts as connected. */
  readonly answered: boolean;
}

/** `answers`: how many were answered with each HTTP status, of a crowd that waits for it. */
export type CrowdNote = { readonly kind: 'connected'; readonly failed: number; readonly answers: Readonly<Record<string, number>> } | { readonly kind: 'closed'; readonly count: number };

const connectingAtOnce = 128;
const sockets: Socket[] = [];
let closed = 0;

function client({ port, answered }: Crowd, request: string, at: number): Promise<string> {
  return new Promise((resolve, reject) => {
    // Linux takes all of 127/8 as its own: so one address runs out of no ports.
    const localAddress = process.platform === 'linux' ? `127.0.0.${1 + (at % 8)}` : '127.0.0.1';
    const socket = connect({ port, host: '127.0.0.1', localAddress }, () => {
      if (request !== '') socket.write(request);
      if (!answered) resolve('');
    });
    sockets.push(socket);
    let head = '';
    socket.on('data', (bytes: Buffer) => {
      head += bytes.toString('latin1');
      if (head.length < 12) return;
      // From here on nothing is read.
      socket.pause();
      resolve(head.slice(9, 12));
    });
    socket.on('error', reject);
    socket.on('close', () => {
      closed += 1;
      reject(new Error('closed'));
      tell();
    });
  });
}

let telling: NodeJS.Timeout | null = null;
function tell(): void {
  telling ??= setTimeout(() => {
    telling = null;
    process.send?.({ kind: 'closed', count: closed } satisfies CrowdNote);
  }, 100);
}

async function gather(crowd: Crowd): Promise<void> {
  const answers: Record<string, number> = {};
  let [next, failed] = [0, 0];
  const lane = async (): Promise<void> => {
    while (next < crowd.requests.length) {
      const at = next++;
      try {
        const status = await client(crowd, crowd.requests[at] ?? '', at);
        answers[status] = (answers[status] ?? 0) + 1;
      } catch {
        failed += 1;
      }
    }
  };
  await Promise.all(Array.from({ length: connectingAtOnce }, lane));
  process.send?.({ kind: 'connected', failed, answers } satisfies CrowdNote);
}

process.on('message', (crowd: Crowd) => void gather(crowd));
process.on('disconnect', () => process.exit());
