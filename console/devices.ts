import { ago, count, make, part, setText } from './dom.js';
import type { View } from './view.js';
import type { Device, Patient } from './wire.js';

const rowsMax = 500;

interface Head {
  readonly name: string;
  readonly label: string;
  readonly number?: true;
  readonly key: (row: Device) => string | number;
  readonly cell: (row: Device, nowMs: number) => Node | string;
}

/** The devices: sorts, filters, and leads to the patient where that may be seen. */
export class DeviceTable {
  readonly #view: View;
  readonly #onChange: () => void;
  readonly #onPatient: (patient: string) => void;
  readonly #heads: readonly Head[];
  #rows: readonly Device[] | undefined;
  #patients = new Map<string, Patient>();
  #serverMs = 0;
  #whole = true;

  constructor(view: View, onChange: () => void, onPatient: (patient: string) => void) {
    this.#view = view;
    this.#onChange = onChange;
    this.#onPatient = onPatient;
    this.#heads = this.#columns();
    const filter = part<HTMLInputElement>('device-filter');
    filter.value = view.filter;
    filter.addEventListener('input', () => {
      view.filter = filter.value;
      this.#onChange();
      this.#draw();
    });
  }

  show({ rows, whole }: { readonly rows: readonly Device[]; readonly whole: boolean }, patients: readonly Patient[], serverMs: number): void {
    this.#rows = rows;
    this.#whole = whole;
    this.#patients = new Map(patients.map((patient) => [patient.patient, patient]));
    this.#serverMs = serverMs;
    this.#draw();
  }

  refuse(text: string): void {
    part('device-table').replaceChildren(make('p', { class: 'empty' }, text));
  }

  #columns(): readonly Head[] {
    const known = (value: number | null, unit: string): string => (value === null ? '–' : `${count(value)}${unit}`);
    return [
      { name: 'device', label: 'Device', key: (row) => row.device, cell: (row) => row.device },
      { name: 'patient', label: 'Patient', key: (row) => this.#label(row), cell: (row) => this.#patientCell(row) },
      { name: 'connected', label: 'State', key: (row) => (row.connected ? 0 : 1), cell: (row) => make('span', { class: row.connected ? 'on-mark' : 'off-mark' }, `${row.connected ? '● connected' : '○ away'}${row.state === 'active' ? '' : `, ${row.state}`}`) },
      { name: 'last', label: 'Last frame', key: (row) => -Date.parse(row.lastFrame ?? '1970-01-01T00:00:00Z'), cell: (row, nowMs) => (row.lastFrame === null ? 'never' : ago(nowMs - Date.parse(row.lastFrame))) },
      { name: 'frames', label: 'Frames', number: true, key: (row) => row.frames, cell: (row) => count(row.frames) },
      { name: 'battery', label: 'Battery', number: true, key: (row) => row.batteryPercent ?? 101, cell: (row) => (row.batteryPercent === null || row.batteryPercent < 0 ? '–' : `${row.batteryPercent} %`) },
      { name: 'buffered', label: 'Buffered frames', number: true, key: (row) => row.bufferedFrames ?? -1, cell: (row) => known(row.bufferedFrames, '') },
      { name: 'dropped', label: 'Given up by device', number: true, key: (row) => row.droppedFrames ?? -1, cell: (row) => known(row.droppedFrames, '') },
    ];
  }

  #label(row: Device): string {
    return row.patient === null ? '' : (this.#patients.get(row.patient)?.label ?? row.patient);
  }

  #patientCell(row: Device): Node | string {
    const { patient } = row;
    if (patient === null) return '–';
    const link = make('a', { href: `#patient=${patient}` }, this.#label(row));
    link.addEventListener('click', (event) => {
      event.preventDefault();
      this.#onPatient(patient);
    });
    return link;
  }

  #chosen(rows: readonly Device[]): Device[] {
    const wanted = this.#view.filter.trim().toLowerCase();
    const state = (row: Device): string => `${row.device} ${this.#label(row)} ${row.state} ${row.connected ? 'connected' : 'away'}`.toLowerCase();
    const head = this.#heads.find((each) => each.name === this.#view.sort) ?? this.#heads[2];
    const sign = this.#view.descending ? -1 : 1;
    const compare = (a: string | number, b: string | number): number => (typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b), 'en', { numeric: true }));
    return rows.filter((row) => wanted === '' || state(row).includes(wanted)).sort((a, b) => (head === undefined ? 0 : sign * compare(head.key(a), head.key(b))) || a.device.localeCompare(b.device));
  }

  #draw(): void {
    const table = part('device-table');
    if (this.#rows === undefined) return;
    if (this.#rows.length === 0) return table.replaceChildren(empty());
    const rows = this.#chosen(this.#rows);
    setText(part('device-count'), `${count(rows.length)} of ${this.#whole ? '' : 'the first '}${count(this.#rows.length)}${rows.length > rowsMax ? `, ${rowsMax} shown` : ''}`);
    if (rows.length === 0) return table.replaceChildren(make('p', { class: 'empty' }, 'No device fits the filter.'));
    // Redrawn once in a while: keep the place and the focus of whoever works in it.
    const focused = table.contains(document.activeElement) ? (document.activeElement?.getAttribute('data-key') ?? null) : null;
    table.replaceChildren(make('table', {}, make('thead', {}, this.#headRow()), make('tbody', {}, ...rows.slice(0, rowsMax).map((row) => this.#row(row)))));
    if (focused !== null) table.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  #headRow(): HTMLElement {
    return make('tr', {}, ...this.#heads.map((head) => {
      const sorted = head.name === this.#view.sort;
      const order = this.#view.descending ? 'descending' : 'ascending';
      const button = make('button', { type: 'button', 'data-key': `head-${head.name}` }, `${head.label}${sorted ? (this.#view.descending ? ' ▾' : ' ▴') : ''}`);
      button.addEventListener('click', () => this.#sortBy(head.name));
      return make('th', { scope: 'col', ...(sorted ? { 'aria-sort': order } : {}), ...(head.number ? { class: 'number' } : {}) }, button);
    }));
  }

  #sortBy(name: string): void {
    this.#view.descending = this.#view.sort === name && !this.#view.descending;
    this.#view.sort = name;
    this.#onChange();
    this.#draw();
  }

  #row(row: Device): HTMLElement {
    return make('tr', {}, ...this.#heads.map((head) => {
      const content = head.cell(row, this.#serverMs);
      if (content instanceof HTMLAnchorElement) content.dataset['key'] = `patient-${row.device}`;
      return make('td', { class: head.name === 'device' ? 'id' : head.number ? 'number' : '', ...(head.name === 'device' ? { title: row.device } : {}) }, content);
    }));
  }
}

function empty(): HTMLElement {
  return make('p', { class: 'empty' }, 'No device is enrolled. Add a patient and a device: ', make('code', {}, 'spamer patient add'), ' then ', make('code', {}, 'spamer device enroll --patient PATIENT --out device-key.json'));
}
