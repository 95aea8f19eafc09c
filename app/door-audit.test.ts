import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import type { DeviceId } from '../core/ids.js';
import type { AuditEntry } from '../security/audit.js';
import { DoorAudit } from './door-audit.js';

function kept(): { readonly entries: AuditEntry[]; fails: boolean; record(entry: AuditEntry): Promise<void> } {
  const audit = {
    entries: [] as AuditEntry[], fails: false,
    record: async (entry: AuditEntry): Promise<void> => {
      if (audit.fails) throw new Error('not now');
      audit.entries.push(entry);
    },
  };
  return audit;
}

const sums = (entries: readonly AuditEntry[]): Record<string, number> => {
  const found: Record<string, number> = {};
  for (const { context } of entries) found[context['code'] ?? ''] = (found[context['code'] ?? ''] ?? 0) + Number(context['count']);
  return found;
};

test('[DENY] a device is let in only with its entry, and refusals are summed up: few entries, no refusal uncounted', async () => {
  const audit = kept();
  const door = new DoorAudit(audit, 20);
  const device = '11111111-1111-4111-8111-111111111111' as DeviceId;
  await door.admitted(device, 'devices-stream');
  assert.deepEqual(audit.entries.splice(0), [{ action: 'device.connect', outcome: 'allow', actor: { kind: 'device', id: device }, resource: { kind: 'device', id: device }, patient: null, context: { policies: 'devices-stream' } }]);
  for (let at = 0; at < 10_000; at++) door.refused(at % 4 === 0 ? 'bad_request' : 'unauthenticated');
  assert.equal(audit.entries.length, 0);
  const until = Date.now() + 5000;
  while (audit.entries.length < 2 && Date.now() < until) await sleep(5);
  assert.equal(audit.entries.length, 2);
  assert.ok(audit.entries.every(({ outcome, actor, resource }) => outcome === 'deny' && actor.id === '' && resource === null));
  assert.deepEqual(sums(audit.entries), { bad_request: 2500, unauthenticated: 7500 });
  // An audit that can't be written lets nobody in, and what was counted meanwhile is written later.
  audit.fails = true;
  await assert.rejects(door.admitted(device, 'devices-stream'));
  door.refused('unauthenticated');
  await sleep(60);
  assert.equal(audit.entries.length, 2);
  audit.fails = false;
  door.refused('unauthenticated');
  await door.stop();
  assert.deepEqual(sums(audit.entries), { bad_request: 2500, unauthenticated: 7502 });
});
