import { Bedside } from './bedside.js';
import { DeviceTable } from './devices.js';
import { ago, make, part, setText } from './dom.js';
import { Flow } from './flow.js';
import { takeReturn, type Returned } from './issuer-sign-in.js';
import { LedgerLine } from './ledger.js';
import { Refused, told } from './refused.js';
import { Server } from './server.js';
import { secondFactorPanel } from './second-factor.js';
import { signInForm } from './sign-in.js';
import { readView, writeView, type View } from './view.js';
import type { Device, LedgerTotals, Patient, Status, Vocabulary } from './wire.js';

const pollMs = 1000;
const listsEveryPolls = 3;
const refusedPollMs = 10_000;
/** Rows of a list that this page holds; who has more filters by the API. */
const listedMax = 10_000;

/** First: what an issuer sent back goes out of the address, and the view that was there comes back. */
const returned = takeReturn();
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
/** Lists that this token has no right to; asked again with another token only. */
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
  patients = (await allowed<Patient>('patients'))?.rows ?? [];
  const listed = await allowed<Device>('devices');
  if (listed === null) devices.refuse('This token may not list devices. An engineer, clinician or administrator may.');
  else devices.show(listed, patients, serverMs);
  showPatients();
  if (view.detail !== '') await ledger.choose(view.detail);
}

/** null when this role has no right to it: the rest of the page goes on. */
async function allowed<Row>(list: string): Promise<{ readonly rows: readonly Row[]; readonly whole: boolean } | null> {
  if (denied.has(list)) return null;
  try {
    return await server.list<Row>(list, listedMax);
  } catch (error) {
    if (!(error instanceof Refused) || error.problem.status !== 403) throw error;
    denied.add(list);
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
  document.body.classList.remove('gone');
  part('connection').className = 'connection on';
  const notice = part('notice');
  if (!gone) {
    if (!notice.classList.contains('back') && notice.dataset['code'] !== 'sign-in') notice.hidden = true;
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
  // Nothing below looks as if it were of now.
  document.body.classList.add('gone');
  const notice = part('notice');
  notice.className = 'notice';
  notice.hidden = false;
  notice.replaceChildren(`The server is gone. ${seen} Trying again every second. Devices keep what they measure until it is back.`);
}

/** The server answers and refuses, or fails: its own words, the code, and what to do. */
function refused({ problem }: Refused): void {
  lastSeen = new Date();
  gone = false;
  document.body.classList.remove('gone');
  setText(part('connection'), `refused: ${problem.code}`);
  part('connection').className = 'connection off';
  const notice = part('notice');
  // What somebody is typing stays.
  const typing = problem.status === 401 && notice.querySelector('#sign-in') !== null;
  if (!notice.hidden && (typing || notice.dataset['code'] === problem.code)) return;
  notice.dataset['code'] = problem.code;
  notice.className = 'notice';
  notice.hidden = false;
  notice.replaceChildren(`${problem.detail} ${problem.remedy} (${problem.code})`);
  if (problem.status !== 401) return;
  forget();
  notice.append(signInForm(server, asSomebodyElse));
}

/** Another person, or the same again: everything is asked anew. */
function asSomebodyElse(): void {
  delete part('notice').dataset['code'];
  part('notice').hidden = true;
  // The form, with the password in it.
  part('notice').replaceChildren();
  denied.clear();
  polls = 0;
  showAccount();
  clearTimeout(timer);
  void poll();
}

/** Nothing of a patient stays on a page that nobody is signed in on. */
function forget(): void {
  patients = [];
  showPatients();
  devices.refuse('Sign in to list devices.');
  showAccount();
}

function showAccount(): void {
  setText(part('account'), server.signedIn ? 'Sign out' : 'Sign in');
  part('settings').hidden = !server.signedIn;
  if (!server.signedIn) closeSettings();
}

/** What stood there, a secret perhaps, goes too. */
function closeSettings(): void {
  part('settings-panel').hidden = true;
  part('settings-panel').replaceChildren();
}

async function openSettings(): Promise<void> {
  const panel = part('settings-panel');
  try {
    panel.replaceChildren(await secondFactorPanel(server, closeSettings));
    panel.hidden = false;
    panel.querySelector('input')?.focus();
  } catch (error) {
    if (error instanceof Refused) refused(error);
    else absent();
  }
}

part('settings').addEventListener('click', () => void openSettings());

part('account').addEventListener('click', () => {
  if (server.signedIn) {
    // A page that is loaded anew has nothing of the session left.
    void server.signOut().catch(() => undefined).finally(() => location.reload());
    return;
  }
  askToSignIn('Sign in to see what you have a right to.');
});

function askToSignIn(text: string): void {
  const notice = part('notice');
  notice.className = 'notice';
  notice.hidden = false;
  notice.dataset['code'] = 'sign-in';
  notice.replaceChildren(text, signInForm(server, asSomebodyElse));
  notice.querySelector('input')?.focus();
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

/** The second half of a sign-in that led to an issuer and back. */
async function finishSignIn(from: Returned | string): Promise<void> {
  if (typeof from === 'string') askToSignIn(from);
  else {
    try {
      await server.signInFrom(from);
      showAccount();
    } catch (error) {
      askToSignIn(told(error));
    }
  }
  void poll();
}

void ledger.choose(view.detail);
void (returned === null ? poll() : finishSignIn(returned));
