import { Bedside } from './bedside.js';
import { DeviceTable } from './devices.js';
import { ago, make, part, setText } from './dom.js';
import { Flow } from './flow.js';
import { LedgerLine } from './ledger.js';
import { Refused, Server } from './server.js';
import { readView, writeView, type View } from './view.js';
import type { Device, LedgerTotals, Patient, Status, Vocabulary } from './wire.js';

const pollMs = 1000;
const listsEveryPolls = 3;
const refusedPollMs = 10_000;

const server = new Server();
const view: View = readView();
const bedside = new Bedside(server);
const flow = new Flow();
const ledger = new LedgerLine(server, (code) => bedside.label(code), (detail) => {
  view.detail = detail;
  writeView(view);
  void ledger.choose(detail);
});
const devices = new DeviceTable(view, () => writeView(view), choosePatient);

let patients: readonly Patient[] = [];
let lastSeen: Date | undefined;
let gone = false;
let polls = 0;
let known = false;
let timer: ReturnType<typeof setTimeout> | undefined;
/** Paths that this token has no right to; asked again with another token only. */
const denied = new Set<string>();

function choosePatient(id: string): void {
  view.patient = id;
  writeView(view);
  part<HTMLSelectElement>('patient').value = id;
  bedside.show(patients.find((patient) => patient.patient === id));
}

/** The first poll draws the page; later ones keep it true. One at a time, so that a slow server is not asked more. */
async function poll(): Promise<void> {
  let nextMs = pollMs;
  try {
    if (!known) bedside.know(await server.get<Vocabulary>('/v1/signals'));
    known = true;
    const [status, totals] = await Promise.all([server.get<Status>('/v1/status'), server.get<LedgerTotals>('/v1/ledger')]);
    present();
    flow.show(status);
    ledger.show(totals);
    part('demo-mark').hidden = !status.demo;
    setText(part('version'), `· ${status.version}`);
    if (polls % listsEveryPolls === 0) await lists(Date.parse(status.time));
    polls += 1;
  } catch (error) {
    if (error instanceof Refused) {
      refused(error);
      // Asking again changes nothing until somebody gives another token.
      if (error.problem.status === 401) nextMs = refusedPollMs;
    } else absent();
  }
  timer = setTimeout(() => void poll(), nextMs);
}

async function lists(serverMs: number): Promise<void> {
  patients = await allowed<{ patients: readonly Patient[] }>('/v1/patients').then((answer) => answer?.patients ?? []);
  const rows = await allowed<{ devices: readonly Device[] }>('/v1/devices');
  if (rows === null) devices.refuse('This token may not list devices. An engineer, clinician or administrator may.');
  else devices.show(rows.devices, patients, serverMs);
  showPatients();
  if (view.detail !== '') await ledger.choose(view.detail);
}

/** null when this role has no right to it: the rest of the page goes on. */
async function allowed<T>(path: string): Promise<T | null> {
  if (denied.has(path)) return null;
  try {
    return await server.get<T>(path);
  } catch (error) {
    if (!(error instanceof Refused) || error.problem.status !== 403) throw error;
    denied.add(path);
    return null;
  }
}

function showPatients(): void {
  const picker = part<HTMLSelectElement>('patient');
  const text = (patient: Patient): string => `${patient.label}${patient.origin === null ? '' : ` (demo, ${patient.origin})`}`;
  const wanted = patients.map((patient) => `${patient.patient} ${text(patient)}`).join('\n');
  if (picker.dataset['shown'] !== wanted) {
    picker.dataset['shown'] = wanted;
    picker.replaceChildren(...patients.map((patient) => make('option', { value: patient.patient }, text(patient))));
    picker.disabled = patients.length === 0;
  }
  const chosen = patients.find((patient) => patient.patient === view.patient) ?? patients[0];
  if (chosen !== undefined) picker.value = chosen.patient;
  bedside.show(chosen);
}

/** The server answers. */
function present(): void {
  lastSeen = new Date();
  setText(part('connection'), 'connected');
  part('connection').className = 'connection on';
  const notice = part('notice');
  if (!gone) {
    if (!notice.classList.contains('back')) notice.hidden = true;
    return;
  }
  gone = false;
  notice.className = 'notice back';
  notice.hidden = false;
  notice.replaceChildren('The server is back.');
  setTimeout(() => {
    if (notice.classList.contains('back')) notice.hidden = true;
    notice.classList.remove('back');
  }, 5000);
}

/** The server does not answer: say so once, and keep the age right. */
function absent(): void {
  const seen = lastSeen === undefined ? 'It was not seen yet.' : `Last seen ${lastSeen.toLocaleTimeString()}; what is below is as of then.`;
  setText(part('connection'), lastSeen === undefined ? 'no server' : `server gone, seen ${ago(Date.now() - lastSeen.getTime())}`);
  part('connection').className = 'connection off';
  if (gone) return;
  gone = true;
  const notice = part('notice');
  notice.className = 'notice';
  notice.hidden = false;
  notice.replaceChildren(`The server is gone. ${seen} Trying again every second. Devices keep what they measure until it is back.`);
}

/** The server answers and refuses, or fails: its own words, the code, and what to do. */
function refused({ problem }: Refused): void {
  lastSeen = new Date();
  gone = false;
  setText(part('connection'), `refused: ${problem.code}`);
  part('connection').className = 'connection off';
  const notice = part('notice');
  if (!notice.hidden && notice.dataset['code'] === problem.code) return;
  notice.dataset['code'] = problem.code;
  notice.className = 'notice';
  notice.hidden = false;
  notice.replaceChildren(`${problem.detail} ${problem.remedy} (${problem.code})`);
  if (problem.status === 401) notice.append(tokenForm());
}

function tokenForm(): HTMLElement {
  const input = make('input', { type: 'password', name: 'token', 'aria-label': 'Token', placeholder: 'paste a token', autocomplete: 'off', required: '' });
  const form = make('form', {}, input, make('button', { type: 'submit' }, 'Use'));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    server.useToken(input.value.trim());
    delete part('notice').dataset['code'];
    part('notice').hidden = true;
    denied.clear();
    polls = 0;
    clearTimeout(timer);
    void poll();
  });
  return make('div', {}, 'An administrator makes one with ', make('code', {}, 'spamer token create --role engineer'), form);
}

part<HTMLSelectElement>('patient').addEventListener('change', (event) => choosePatient((event.target as HTMLSelectElement).value));

window.addEventListener('hashchange', () => {
  Object.assign(view, readView());
  part<HTMLInputElement>('device-filter').value = view.filter;
  showPatients();
  void ledger.choose(view.detail);
  polls = 0;
});

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && view.detail !== '') {
    view.detail = '';
    writeView(view);
    void ledger.choose('');
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
  if (event.key === '/') {
    event.preventDefault();
    part('device-filter').focus();
  }
  if (event.key === '[' || event.key === ']') nextPatient(event.key === ']' ? 1 : -1);
});

function nextPatient(step: number): void {
  if (patients.length === 0) return;
  const at = patients.findIndex((patient) => patient.patient === part<HTMLSelectElement>('patient').value);
  const next = patients[(at + step + patients.length) % patients.length];
  if (next !== undefined) choosePatient(next.patient);
}

void ledger.choose(view.detail);
void poll();
