import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Command } from 'commander';
import { commandActions } from '../query/actions.js';
import { PolicyEngine } from '../security/policy.js';
import { readPolicyFiles } from '../security/policy-files.js';
import { commands } from './commands.js';

/** The words of every command that does something, 'patient add'; those that only hold others are left out. */
function namesOf(command: Command, before: readonly string[] = []): string[] {
  const words = [...before, command.name()];
  return command.commands.length === 0 ? [words.join(' ')] : command.commands.flatMap((sub) => namesOf(sub, words));
}

test('[DENY] every command has its line of actions, every line is a command, and every action is one of the policies', () => {
  assert.deepEqual(commands().flatMap((command) => namesOf(command)).sort(), Object.keys(commandActions).sort());
  const { actions } = new PolicyEngine(readPolicyFiles());
  for (const [command, asked] of Object.entries(commandActions)) {
    if (asked === 'local') continue;
    assert.notEqual(asked.length, 0, command);
    assert.deepEqual(asked.filter((action) => !actions.includes(action)), [], command);
  }
});
