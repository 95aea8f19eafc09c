import type { PatientId } from '../core/ids.js';
import type { Remote } from './rpc.js';
import type { StoresThread } from './stores-thread.js';

/** Chunks of a patient in the PMR store. */
export async function countChunks(stores: Pick<Remote<StoresThread>, 'chunks'>, patient: PatientId): Promise<number> {
  let count = 0;
  let cursor: string | null = null;
  do {
    const page: Awaited<ReturnType<StoresThread['chunks']>> = await stores.chunks({ patient, limit: 500, ...(cursor === null ? {} : { cursor }) });
    count += page.rows.length;
    cursor = page.next;
  } while (cursor !== null);
  return count;
}
