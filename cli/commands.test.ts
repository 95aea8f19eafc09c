import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Command } from 'commander';
import { commandActions } from '../query/actions.js';
import { PolicyEngine } from '../security/policy.js';
import { readPolicyFiles } from '../security/policy-files.js';
import { commands } from './commands.js';
import { placeOnCommandLine } from './required.js';

/** The words of every command that does something, 'patient add'; those that only hold others are left out. */
function namesOf(command: Command, before: readonly string[] = []): string[] {
  const words = [...before, command.name()];
  return command.commands.length === 0 ? [words.join(' ')] : command.commands.flatMap((sub) => namesOf(sub, words));
}

/** Every command that does something, below its parents, as the program has them. */
function leavesOf(command: Command): Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leavesOf);
}

test('the help of every command says what must be given, in its usage line and beside the option', () => {
  let required = 0;
  for (const command of commands().flatMap(leavesOf)) {
    const [usage = ''] = /^Usage: .*$/m.exec(command.helpInformation()) ?? [];
    const help = command.helpInformation().replace(/\s+/g, ' ');
    for (const option of command.options.filter(({ mandatory }) => mandatory)) {
      assert.ok(usage.includes(` ${option.flags} `), `${command.name()}: ${usage}`);
      assert.match(help, new RegExp(`${option.flags.replaceAll('.', '\\.')} [^<]*\\(required\\)`), command.name());
      required += 1;
    }
  }
  assert.ok(required > 25, `${required}`);
  const emulate = commands().find((command) => command.name() === 'emulate')?.helpInformation() ?? '';
  assert.match(emulate, /^Usage: emulate --key <file\.\.\.> \(--wfdb <record> \| --edf <file> \| --vital <file> \| --csv <file> \| --synthetic\) \[options\]$/m);
  assert.match(emulate.replace(/\s+/g, ' '), /EDF file \(one of these is required\)/);
});

test('what the server says of a place in a request is said as the option or argument that it came from', () => {
  const of = (words: string, where: string): string => {
    const found = words.split(' ').reduce<Command | undefined>((command, word) => command?.commands.find((sub) => sub.name() === word), { commands: commands() } as unknown as Command);
    assert.ok(found !== undefined, words);
    return placeOnCommandLine(where, found);
  };
  assert.equal(of('pmr export', 'body/patients/0'), '--patient');
  assert.equal(of('pmr export', 'querystring/from'), '--from');
  assert.equal(of('patient add', 'birthDate'), '--birth-date');
  assert.equal(of('patient add', 'body/attributes/zip'), '--zip');
  assert.equal(of('study enrol', 'params/study'), '<study>');
  assert.equal(of('user add', 'body/studies/3'), '--study');
  assert.equal(of('erasure approve', 'params/erasure'), '<erasure>');
  for (const where of ['/a/path/to/file', 'http://127.0.0.1:8080', 'body', 'vitals.raw']) assert.equal(of('pmr export', where), where);
});

test('[DENY] every command has its line of actions, every line is a command, and every action is one of the policies', () => {
  assert.deepEqual(commands().flatMap((command) => namesOf(command)).sort(), Object.keys(commandActions).sort());
  const { actions } = new PolicyEngine(readPolicyFiles());
  for (const [command, asked] of Object.entries(commandActions)) {
    if (asked === 'local') continue;
    assert.notEqual(asked.length, 0, command);
    assert.deepEqual(asked.filter((action) => !actions.includes(action)), [], command);
  }
});
