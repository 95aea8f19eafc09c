import { ago, make, part, rounded, setText } from './dom.js';
import { Playhead } from './playhead.js';
import { Refused } from './refused.js';
import type { Server } from './server.js';
import { Strip } from './strip.js';
import { events, type LiveFrame, type Patient, type Vocabulary } from './wire.js';

const stripsMax = 16;
const staleAfterMs = 5000;
/** A stream that only is renewed is back within it. */
const renewedWithinMs = 1500;
const priorities = ['', 'low', 'medium', 'high'] as const;

/** UCUM is for programs; at the bedside these are said otherwise. */
const spoken: ReadonlyMap<string, string> = new Map([['mm[Hg]', 'mmHg'], ['Cel', '°C'], ['1', 'rel. units']]);

interface Reading {
  readonly row: HTMLElement;
  readonly value: HTMLElement;
  readonly age: HTMLElement;
  atMs: number;
  timeUs: number;
}

/** Waves and numerics of the chosen patient. */
export class Bedside {
  readonly #server: Server;
  readonly #strips = new Map<string, { readonly strip: Strip; readonly device: string }>();
  readonly #playheads = new Map<string, Playhead>();
  readonly #readings = new Map<number, Reading>();
  readonly #labels = new Map<number, string>();
  readonly #units = new Map<number, string>();
  #patient: Patient | undefined;
  #stop = new AbortController();
  #connected = false;
  #lastFrameMs = -Infinity;
  #alarmUntilMs = 0;
  #newestUs = -Infinity;

  constructor(server: Server) {
    this.#server = server;
    new ResizeObserver(() => this.#resize()).observe(part('strips'));
    const still = matchMedia('(prefers-reduced-motion: reduce)');
    let drawnMs = 0;
    const tick = (nowMs: number): void => {
      requestAnimationFrame(tick);
      // Whoever asks for less motion gets the same wave in steps of a second.
      if (document.hidden || (still.matches && nowMs - drawnMs < 1000)) return;
      drawnMs = nowMs;
      this.#draw();
    };
    requestAnimationFrame(tick);
    setInterval(() => this.#showAges(), 1000);
    part('download').addEventListener('click', () => void this.#download());
  }

  know({ signals, units }: Vocabulary): void {
    for (const { code, label } of signals) this.#labels.set(code, label);
    for (const { code, ucum } of units) this.#units.set(code, spoken.get(ucum) ?? ucum);
  }

  label(code: number): string {
    return this.#labels.get(code) ?? `signal ${code}`;
  }

  show(patient: Patient | undefined): void {
    if (patient?.patient === this.#patient?.patient) return;
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#patient = patient;
    this.#clear();
    if (patient !== undefined) void this.#follow(patient, this.#stop.signal);
  }

  #clear(): void {
    this.#strips.clear();
    this.#playheads.clear();
    this.#readings.clear();
    this.#lastFrameMs = -Infinity;
    this.#newestUs = -Infinity;
    part('numerics').replaceChildren();
    setText(part('alarm'), '');
    const text = this.#patient === undefined ? 'No patient to show.' : 'Waiting for the first frame…';
    part('strips').replaceChildren(make('p', { class: 'empty' }, text));
    const origin = part('origin');
    origin.hidden = this.#patient?.origin == null;
    setText(origin, `demo · ${this.#patient?.origin ?? ''}`);
    part('download').hidden = this.#patient === undefined;
  }

  /** Follows the stream until another patient is chosen; a lost connection is tried again, sooner at first. */
  async #follow(patient: Patient, signal: AbortSignal): Promise<void> {
    for (let waitMs = 500; !signal.aborted; waitMs = Math.min(8000, waitMs * 1.7)) {
      try {
        const stream = await this.#server.stream(`/v1/patients/${patient.patient}/live`, signal);
        this.#connected = true;
        for await (const { event, data } of events(stream)) {
          waitMs = 500;
          if (event === 'frame') this.#take(JSON.parse(data) as LiveFrame);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refused) setText(part('live-state'), `${error.problem.detail} (${error.problem.code}) ${error.problem.remedy}`);
      }
      this.#connected = false;
      await new Promise((resolve) => setTimeout(resolve, waitMs * (0.8 + Math.random() * 0.4)));
    }
  }

  #take(frame: LiveFrame): void {
    const nowMs = performance.now();
    this.#lastFrameMs = nowMs;
    let endUs = -Infinity;
    for (const wave of frame.waves) {
      const { code, unit, t0, periodNs, scale, offset, samples } = wave;
      this.#stripOf(frame.device, code, unit)?.add({ t0, periodUs: periodNs / 1000, values: Float32Array.from(samples, (sample) => sample * scale + offset) });
      endUs = Math.max(endUs, t0 + (samples.length * periodNs) / 1000);
    }
    this.#newestUs = Math.max(this.#newestUs, endUs);
    if (endUs > -Infinity) this.#playheadOf(frame.device).arrived(endUs, nowMs);
    for (const { code, unit, time, value } of frame.numerics) this.#read(code, unit, time, value, nowMs);
    for (const event of frame.events) if (event.kind === 'ALARM' && event.priority > 0) this.#alarm(event.code, event.priority, nowMs);
  }

  #playheadOf(device: string): Playhead {
    let playhead = this.#playheads.get(device);
    if (playhead === undefined) this.#playheads.set(device, (playhead = new Playhead()));
    return playhead;
  }

  #stripOf(device: string, code: number, unit: number): Strip | undefined {
    const key = `${device} ${code} ${unit}`;
    const known = this.#strips.get(key);
    if (known !== undefined || this.#strips.size >= stripsMax) return known?.strip;
    const label = this.label(code);
    const strip = new Strip(label, this.#units.get(unit) ?? '', kindOf(label), this.#sweepUs());
    const list = part('strips');
    if (this.#strips.size === 0) list.replaceChildren();
    this.#strips.set(key, { strip, device });
    list.append(strip.element);
    this.#resize();
    return strip;
  }

  #sweepUs(): number {
    return part('strips').clientWidth < 500 ? 5_000_000 : 10_000_000;
  }

  #resize(): void {
    // Sixteen strips still fit a laptop's screen.
    document.documentElement.style.setProperty('--strip-height', this.#strips.size > 6 ? '3.4rem' : '6rem');
    for (const { strip } of this.#strips.values()) strip.resize(this.#sweepUs());
  }

  #draw(): void {
    const nowMs = performance.now();
    const times = new Map([...this.#playheads].map(([device, playhead]) => [device, playhead.at(nowMs)]));
    for (const { strip, device } of this.#strips.values()) strip.draw(times.get(device) ?? NaN, nowMs);
  }

  #read(code: number, unit: number, timeUs: number, value: number, nowMs: number): void {
    let reading = this.#readings.get(code);
    if (reading === undefined) {
      const label = this.label(code);
      const shown = make('span', {});
      const age = make('small', {});
      const row = make('div', { class: kindOf(label) }, make('dt', {}, label), make('dd', {}, shown, ' ', make('small', {}, this.#units.get(unit) ?? ''), ' ', age));
      reading = { row, value: shown, age, atMs: nowMs, timeUs };
      this.#readings.set(code, reading);
      part('numerics').append(row);
    }
    if (timeUs < reading.timeUs) return;
    reading.timeUs = timeUs;
    reading.atMs = nowMs;
    setText(reading.value, rounded(value));
  }

  #alarm(code: number, priority: number, nowMs: number): void {
    const name = priorities[Math.min(3, priority)] ?? '';
    const element = part('alarm');
    element.className = `alarm ${name}`;
    // The signs are IEC 60601-1-8's: priority is never said by colour alone.
    setText(element, `${'!'.repeat(priority)} ${name} priority alarm: ${code === 0 ? 'device' : this.label(code)}`);
    this.#alarmUntilMs = nowMs + 10_000;
  }

  /** A number that is no longer fresh says how old it is. */
  #showAges(): void {
    const nowMs = performance.now();
    for (const { row, age, atMs } of this.#readings.values()) {
      const stale = nowMs - atMs > staleAfterMs;
      row.classList.toggle('stale', stale);
      setText(age, stale ? ago(nowMs - atMs) : '');
    }
    if (nowMs > this.#alarmUntilMs) setText(part('alarm'), '');
    if (this.#patient === undefined) return setText(part('live-state'), '');
    const silentMs = nowMs - this.#lastFrameMs;
    // What does not come any more is not live, however new the last of it is.
    if (silentMs < (this.#connected ? staleAfterMs : renewedWithinMs)) return setText(part('live-state'), 'live');
    if (silentMs < Infinity) return setText(part('live-state'), `last frame ${ago(silentMs)}${this.#connected ? '; the device is silent' : '; reconnecting'}`);
    if (this.#connected) setText(part('live-state'), 'connected, no frame yet');
  }

  async #download(): Promise<void> {
    const patient = this.#patient;
    if (patient === undefined) return;
    const to = Math.ceil(this.#newestUs > -Infinity ? this.#newestUs : Date.now() * 1000);
    try {
      const record = await this.#server.get<object>(`/v1/patients/${patient.patient}/record?from=${to - 60_000_000}&to=${to}`);
      const url = URL.createObjectURL(new Blob([JSON.stringify(record)], { type: 'application/json' }));
      make('a', { href: url, download: 'last-minute.json' }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    } catch (error) {
      setText(part('live-state'), error instanceof Refused ? `${error.problem.detail} (${error.problem.code})` : 'The server could not be reached; try again.');
    }
  }
}

/** Colours as bedside habit has them. */
function kindOf(label: string): string {
  if (/^(ECG|HR)/i.test(label)) return 'ecg';
  if (/^(pleth|sp?o2|pulse|SaO2|PI$)/i.test(label)) return 'pleth';
  if (/^(ABP|ART|NIBP|pressure)/i.test(label)) return 'abp';
  return /^(resp|RR|EtCO2|CO2)/i.test(label) ? 'resp' : 'other';
}
