import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import type { Command } from 'commander';
import { SpamerError } from '../core/errors.js';
import { action, command, type CommonOptions } from './context.js';

/** `spamer policy …`: the policies that decide, tested and explained; no server is needed. */
export function policy(): Command {
  return command('policy', 'The access policies (Cedar).', ['spamer policy test', 'spamer policy explain --case "a patient objects"']).addCommand(test()).addCommand(explainCommand());
}

function test(): Command {
  return command('test', 'Run the tests beside the policies, own ones too; exit code 1 when one fails.', ['spamer policy test', 'SPAMER_POLICY_DIR=/etc/spamer/policies spamer policy test'])
    .action(action<CommonOptions>('policy test', async ({ output, config }) => {
      const { engine, cases } = await opened(config().policy_dir);
      const results = cases.runCases(engine);
      const failed = results.filter(({ passed }) => !passed);
      const shown = failed.map(({ file, name, expected, decision }) => ({ file, name, expected, allowed: decision.allowed, policies: decision.policies, faults: decision.faults }));
      output.answer({ policies: Object.keys(engine.files.policies).length, tests: results.length, failed: shown }, () => {
        for (const one of shown) output.say(`FAILED ${basename(one.file)}: ${one.name}\n  expected ${one.expected}, got ${one.allowed ? 'allow' : 'deny'}${one.policies.length === 0 ? '' : ` by ${one.policies.join(', ')}`}${one.faults.map((fault) => `\n  ${fault}`).join('')}`);
        output.say(`${results.length - failed.length} of ${results.length} tests passed, ${Object.keys(engine.files.policies).length} policies`);
      });
      return failed.length === 0 ? 0 : 1;
    }));
}

interface ExplainOptions extends CommonOptions {
  readonly case?: string;
}

function explainCommand(): Command {
  return command('explain', 'Say which policy decides a request, or what every policy about it lacks.', ['spamer policy explain request.json', 'spamer policy explain --case "a patient objects"', 'spamer policy explain - < request.json'])
    .argument('[file]', 'a request as a case of the tests has it: principal, action, resource, context (-: standard input)')
    .option('--case <name>', 'a case of the tests instead')
    .action(action<ExplainOptions>('policy explain', async ({ output, config }, options, [file]) => {
      const { engine, cases, explain } = await opened(config().policy_dir);
      const request = options.case === undefined ? fromFile(file) : engine.files.tests.flatMap((path) => cases.readCases(path)).find(({ name }) => name === options.case);
      if (request === undefined) throw new SpamerError('bad_request', 'no test case has this name', { where: '--case' });
      const explanation = explain(engine, cases.requestOf(request));
      const { decision, absent, nearMisses } = explanation;
      output.answer(explanation, () => {
        output.say(`${decision.allowed ? 'allow' : 'deny'}${decision.policies.length === 0 ? '' : ` by ${decision.policies.join(', ')}`}`);
        for (const fault of decision.faults) output.say(`fault: ${fault}`);
        if (absent.length > 0) output.say(`not in the request: ${absent.join(', ')}`);
        for (const { policy: id, unmet } of nearMisses) output.say(`${id} would permit, but for\n${unmet.map((text) => `  ${text}`).join('\n')}`);
      });
      return decision.allowed ? 0 : 1;
    }));
}

type Asked = Parameters<(typeof import('../security/policy-cases.js'))['requestOf']>[0];

function fromFile(file: string | undefined): Asked {
  if (file === undefined) throw new SpamerError('bad_request', 'name a file, or a case with --case', { where: 'file' });
  try {
    const read = JSON.parse(readFileSync(file === '-' ? 0 : file, 'utf8')) as Partial<Asked>;
    if (typeof read.action === 'string' && typeof read.principal === 'object' && typeof read.resource === 'object') return read as Asked;
  } catch (cause) {
    throw new SpamerError('bad_request', 'the request cannot be read as JSON', { where: file, cause });
  }
  throw new SpamerError('bad_request', 'a request has principal, action and resource', { where: file });
}

/** Loaded only when it runs: the library is 4 MB. */
async function opened(own: string | undefined) {
  const [{ PolicyEngine }, { readPolicyFiles }, cases, { explain }] = await Promise.all([
    import('../security/policy.js'), import('../security/policy-files.js'), import('../security/policy-cases.js'), import('../security/explain.js'),
  ]);
  return { engine: new PolicyEngine(readPolicyFiles(own)), cases, explain };
}
