import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MessageChannel } from 'node:worker_threads';
import { SpamerError } from '../core/errors.js';
import { connect, serve } from './rpc.js';

test('calls, codes and unknown methods cross a port; foreign messages do not', async (t) => {
  const { port1, port2 } = new MessageChannel();
  t.after(() => port1.close());
  serve(port1, {
    double: async (value: number) => value * 2,
    refuse: async () => { throw new SpamerError('forbidden', 'no', { where: 'here' }); },
    leak: async () => { throw new Error('Zebra Quagga has 42'); },
  });
  const { api } = connect<{ double(value: number): Promise<number>; refuse(): Promise<void>; leak(): Promise<void>; missing(): Promise<void> }>(port2);
  assert.equal(await api.double(21), 42);
  await assert.rejects(api.refuse(), (error) => error instanceof SpamerError && error.code === 'forbidden' && error.where === 'here');
  await assert.rejects(api.leak(), (error) => error instanceof SpamerError && error.code === 'internal' && !error.message.includes('Zebra'));
  await assert.rejects(api.missing(), (error) => error instanceof SpamerError && error.code === 'internal');
});

test('what is in flight fails when the other side ends', async () => {
  const { port1, port2 } = new MessageChannel();
  serve(port1, { never: () => new Promise<void>(() => undefined) });
  const { api } = connect<{ never(): Promise<void> }>(port2);
  const pending = api.never();
  port1.close();
  await assert.rejects(pending, (error) => error instanceof SpamerError && error.code === 'unreachable');
});

test('what cannot cross fails its own call, asked or answered, and no other', async (t) => {
  const { port1, port2 } = new MessageChannel();
  t.after(() => port1.close());
  serve(port1, { double: async (value: number) => value * 2, odd: async () => () => undefined });
  const { api } = connect<{ double(value: unknown): Promise<number>; odd(): Promise<unknown> }>(port2);
  await assert.rejects(api.odd(), { code: 'internal' });
  await assert.rejects(api.double(() => 1));
  assert.equal(await api.double(21), 42);
});
