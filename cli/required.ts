import { Help, type Command, type Option } from 'commander';

/** Options of which exactly one is to be given, by each of them. */
const alternatives = new WeakMap<Option, readonly Option[]>();

/** Exactly one of these options is needed: the help says so, and it is checked before anything is done. */
export function needsOneOf(made: Command, ...names: readonly string[]): Command {
  const options = made.options.filter((option) => names.includes(option.attributeName()));
  for (const option of options) alternatives.set(option, options);
  return made.hook('preAction', (command) => {
    const given = options.filter((option) => command.getOptionValueSource(option.attributeName()) === 'cli');
    if (given.length === 1) return;
    const flags = (given.length === 0 ? options : given).map(({ long }) => long).join(', ');
    command.error(`error: ${given.length === 0 ? 'give one of' : 'give only one of'} ${flags}`);
  });
}

/** The help of a command: what must be given stands in the usage line, and beside each option. */
export const helpWithRequired: Partial<Help> = {
  optionDescription(option: Option): string {
    const said = Help.prototype.optionDescription.call(this, option);
    const others = (alternatives.get(option) ?? []).filter((other) => other !== option).map(({ long }) => long);
    const needed = option.mandatory ? '(required)' : others.length === 1 ? `(required, or ${others[0] ?? ''})` : others.length > 1 ? '(one of these is required)' : '';
    return [said, needed].filter((part) => part !== '').join(' ');
  },
  commandUsage(command: Command): string {
    const usage = Help.prototype.commandUsage.call(this, command);
    const needed = command.options.flatMap((option) => {
      const group = alternatives.get(option);
      if (option.mandatory) return [option.flags];
      return group !== undefined && group[0] === option ? [`(${group.map(({ flags }) => flags).join(' | ')})`] : [];
    });
    return needed.length === 0 ? usage : usage.replace('[options]', [...needed, '[options]'].join(' '));
  },
};

/** The option or argument of the command that a place in a request came from, as the user wrote it; the place itself where it came from none. */
export function placeOnCommandLine(where: string, command: Command): string {
  // A file or an address may end in the name of an option.
  if (!/^(?:(?:body|params|querystring)\/.+|\w+)$/.test(where)) return where;
  const [name = ''] = where.split('/').filter((part) => !/^\d+$/.test(part)).slice(-1);
  // A body has lists where the command line has an option that is given several times.
  const option = command.options.find((each) => [name, name.replace(/ies$/, 'y'), name.replace(/s$/, '')].includes(each.attributeName()));
  if (option !== undefined) return option.long ?? option.flags;
  const argument = command.registeredArguments.find((each) => each.name() === name);
  return argument === undefined ? where : `<${argument.name()}>`;
}
