import { count, make, part, setText } from './dom.js';
import { Refused } from './refused.js';
import type { Server } from './server.js';
import type { View } from './view.js';
import type { LedgerChannel, LedgerTotals } from './wire.js';

type Entry = Exclude<View['detail'], ''>;

const entries: ReadonlyArray<{ readonly name: Entry; readonly label: string; readonly before: string; readonly meaning: string }> = [
  { name: 'accepted', label: 'accepted', before: '', meaning: 'Samples that devices got an ack for: they are on disk.' },
  { name: 'stored', label: 'stored', before: '=', meaning: 'Samples in the PMR store and, where a study takes them, in the analytics store.' },
  { name: 'rejected', label: 'rejected', before: '+', meaning: 'Samples that failed validation; kept, sealed, as dead letters.' },
  { name: 'held', label: 'held', before: '+', meaning: 'Valid samples of patients whose group has not reached k yet; kept sealed until it has.' },
  { name: 'erased', label: 'erased', before: '+', meaning: 'Samples of erased patients that came after their keys were destroyed; passed over unread.' },
  { name: 'inFlight', label: 'in flight', before: '+', meaning: 'Samples on their way through the stages.' },
];
const rowsMax = 200;

/** The line that must add up, and behind each number where it comes from. */
export class LedgerLine {
  readonly #server: Server;
  readonly #label: (code: number) => string;
  readonly #onChoice: (detail: View['detail']) => void;
  readonly #buttons = new Map<Entry, { readonly button: HTMLButtonElement; readonly number: HTMLElement }>();
  readonly #sum = make('span', { class: 'sum' });
  #detail: View['detail'] = '';
  #totals: LedgerTotals | undefined;

  constructor(server: Server, label: (code: number) => string, onChoice: (detail: View['detail']) => void) {
    this.#server = server;
    this.#label = label;
    this.#onChoice = onChoice;
    for (const { name, label: text, before } of entries) {
      const number = make('strong', {}, '–');
      const button = make('button', { type: 'button', 'aria-expanded': 'false', 'aria-controls': 'ledger-detail' }, number, make('span', { class: 'quiet' }, `${text} samples`));
      button.addEventListener('click', () => this.#onChoice(this.#detail === name ? '' : name));
      this.#buttons.set(name, { button, number });
      part('ledger-line').append(...(before === '' ? [] : [make('span', { class: 'op', 'aria-hidden': 'true' }, before)]), button);
    }
    part('ledger-line').append(this.#sum);
  }

  show(totals: LedgerTotals): void {
    this.#totals = totals;
    for (const [name, { number }] of this.#buttons) setText(number, count(totals[name]));
    const adds = totals.accepted === totals.stored + totals.rejected + totals.held + totals.erased + totals.inFlight && totals.balanced;
    this.#sum.className = `sum ${adds ? 'good' : 'bad'}`;
    setText(this.#sum, adds ? '✓ adds up' : '✗ does not add up: run spamer reconcile');
  }

  async choose(detail: View['detail']): Promise<void> {
    this.#detail = detail;
    for (const [name, { button }] of this.#buttons) button.setAttribute('aria-expanded', String(name === detail));
    const panel = part('ledger-detail');
    panel.hidden = detail === '';
    if (detail === '') return;
    if (panel.dataset['detail'] !== detail) panel.replaceChildren(make('p', { class: 'quiet' }, 'Loading…'));
    panel.dataset['detail'] = detail;
    const content = await this.#content(detail);
    if (this.#detail === detail) panel.replaceChildren(...content);
  }

  async #content(detail: Entry): Promise<HTMLElement[]> {
    const meaning = make('p', {}, entries.find((entry) => entry.name === detail)?.meaning ?? '');
    const reasons = detail === 'rejected' ? this.#reasons() : [];
    try {
      const { channels } = await this.#server.get<{ channels: readonly LedgerChannel[] }>('/v1/ledger/channels');
      return [meaning, ...reasons, this.#table(detail, channels)];
    } catch (error) {
      if (!(error instanceof Refused)) return [meaning, ...reasons, make('p', { class: 'quiet' }, 'The server could not be reached.')];
      return [meaning, ...reasons, make('p', { class: 'quiet' }, `Which devices: ${error.problem.detail} (${error.problem.code}) ${error.problem.remedy}`)];
    }
  }

  #reasons(): HTMLElement[] {
    const rows = Object.entries(this.#totals?.rejectedByReason ?? {}).sort((a, b) => b[1] - a[1]);
    if (rows.length === 0) return [];
    return [tableOf(['Reason', 'Samples'], rows.map(([reason, samples]) => [reason.replaceAll('_', ' '), count(samples)]))];
  }

  #table(detail: Entry, channels: readonly LedgerChannel[]): HTMLElement {
    const rows = channels.filter((channel) => channel[detail] !== 0).sort((a, b) => b[detail] - a[detail]);
    if (rows.length === 0) return make('p', { class: 'quiet' }, 'None.');
    const table = tableOf(['Signal', 'Samples', 'Balanced', 'Device'], rows.slice(0, rowsMax).map((row) => [this.#label(row.code), count(row[detail]), row.balanced ? 'yes' : 'no', row.device]));
    const more = rows.length > rowsMax ? [make('p', { class: 'quiet' }, `The ${rowsMax} largest of ${rows.length}; spamer reconcile lists all.`)] : [];
    return make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `${detail} samples by device and signal` }, table, ...more);
  }
}

/** A plain table; number columns are those of samples and frames. */
export function tableOf(heads: readonly string[], rows: ReadonlyArray<readonly string[]>): HTMLTableElement {
  const kind = (index: number): Record<string, string> => (/^(Samples|Frames)/.test(heads[index] ?? '') ? { class: 'number' } : {});
  const head = make('tr', {}, ...heads.map((text, index) => make('th', { scope: 'col', ...kind(index) }, text)));
  const body = rows.map((row) => make('tr', {}, ...row.map((text, index) => make('td', kind(index), text))));
  return make('table', {}, make('thead', {}, head), make('tbody', {}, ...body));
}
