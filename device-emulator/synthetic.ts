/**
 * Signals that no one was measured for. The ECG is the dynamical model of McSharry, Clifford, Tarassenko and Smith (2003),
 * doi:10.1109/TBME.2003.808805: a point goes round a unit circle once a beat, and five attractors at fixed angles
 * (P, Q, R, S, T) pull the trace up and down. Plethysmogram, pressure, respiration and all numerics come from the same beats
 * and breaths, so they agree. The same seed gives the same samples.
 */
import { signalNamed } from '../schemas/signals.js';
import { normal, randomOf, type Random } from './random.js';
import { firstIndexAt, periodNsOf, type Piece, type Source, type SourceSignal } from './source.js';

/** Long-run means of a made-up patient; the numbers wander around them. */
export interface Profile {
  /** beats/min */
  readonly heartRate: number;
  /** breaths/min */
  readonly breathRate: number;
  /** % */
  readonly spo2: number;
  /** mmHg */
  readonly systolic: number;
  readonly diastolic: number;
  /** °C */
  readonly temperature: number;
}

export interface SyntheticOptions {
  readonly seed: number;
  readonly profile?: Partial<Profile>;
  /** null: endless. */
  readonly durationS?: number | null;
}

const usual: Profile = { heartRate: 72, breathRate: 15, spo2: 97, systolic: 120, diastolic: 76, temperature: 36.9 };

const stepHz = 250;
/** Angle (rad), height and width of P, Q, R, S, T: table I of the paper. */
const attractors: ReadonlyArray<readonly [angle: number, height: number, width: number]> = [
  [-Math.PI / 3, 1.2, 0.25], [-Math.PI / 12, -5, 0.1], [0, 30, 0.1], [Math.PI / 12, -7.5, 0.1], [Math.PI / 2, 0.75, 0.4],
];
/** The model's trace has no unit; this makes its R wave about 1 mV. */
const millivolts = 1.6 / 0.06;

interface Channel extends SourceSignal {
  /** Steps of the model from one sample to the next. */
  readonly every: number;
  readonly value: (body: Body) => number;
}

function channel(name: string, every: number, scale: number, value: (body: Body) => number): Channel {
  const signal = signalNamed(name);
  const hz = stepHz / every;
  return { code: signal?.code ?? 0, unit: signal?.unit ?? 0, kind: signal?.kind ?? 'wave', label: signal?.label ?? name, hz, periodNs: periodNsOf(hz), scale, offset: 0, every, value };
}

const channels: readonly Channel[] = [
  channel('MDC_ECG_ELEC_POTL_II', 1, 0.005, (body) => body.ecg),
  channel('MDC_PULS_OXIM_PLETH', 2, 0.001, (body) => body.pleth),
  channel('MDC_PRESS_BLD_ART_ABP', 2, 0.1, (body) => body.pressure),
  channel('MDC_RESP', 5, 0.001, (body) => body.breath),
  channel('MDC_ECG_HEART_RATE', stepHz, 1, (body) => body.heartRate),
  channel('MDC_PULS_OXIM_PULS_RATE', stepHz, 1, (body) => body.heartRate),
  channel('MDC_PULS_OXIM_SAT_O2', stepHz, 1, (body) => body.spo2),
  channel('MDC_RESP_RATE', stepHz, 1, (body) => body.breathRate),
  channel('MDC_PRESS_BLD_ART_ABP_SYS', stepHz, 1, (body) => body.systolic),
  channel('MDC_PRESS_BLD_ART_ABP_DIA', stepHz, 1, (body) => body.diastolic),
  channel('MDC_PRESS_BLD_ART_ABP_MEAN', stepHz, 1, (body) => body.systolic / 3 + (body.diastolic * 2) / 3),
  channel('MDC_TEMP_BODY', stepHz * 10, 0.1, (body) => body.temperature),
];

/** The state of the made-up patient, advanced by 1/250 s at a time. */
class Body {
  ecg = 0;
  readonly #profile: Profile;
  readonly #random: Random;
  #trace = 0;
  #beat = -Math.PI;
  #beatS: number;
  #breathPhase = 0;
  #slowPhase: number;
  #wander = 0;
  readonly #beats: number[] = [];
  #breathHz: number;

  constructor({ seed, profile }: SyntheticOptions) {
    this.#profile = { ...usual, ...profile };
    this.#random = randomOf(seed);
    this.#slowPhase = this.#random() * 2 * Math.PI;
    this.#breathPhase = this.#random() * 2 * Math.PI;
    this.#breathHz = this.#profile.breathRate / 60;
    this.#beatS = 60 / this.#profile.heartRate;
    // Let the trace forget where it began.
    for (let step = 0; step < 4 * stepHz; step++) this.step();
  }

  step(): void {
    const dt = 1 / stepHz;
    const speed = (2 * Math.PI) / this.#beatS;
    this.#trace = this.#rungeKutta(dt, speed);
    this.#beat += speed * dt;
    this.#breathPhase += 2 * Math.PI * this.#breathHz * dt;
    // Slow waves of the vessels' tone at 0.1 Hz (Mayer), and breath, move the heart rate, as in the paper's two-peaked spectrum.
    this.#slowPhase += 2 * Math.PI * 0.1 * dt;
    if (this.#beat > Math.PI) this.#nextBeat();
    this.ecg = this.#trace * millivolts + 0.01 * normal(this.#random);
  }

  #nextBeat(): void {
    this.#beat -= 2 * Math.PI;
    this.#beats.push(this.#beatS);
    if (this.#beats.length > 8) this.#beats.shift();
    this.#wander = 0.98 * this.#wander + 0.1 * normal(this.#random);
    const mean = 60 / this.#profile.heartRate;
    this.#beatS = mean * (1 + 0.025 * Math.sin(this.#breathPhase) + 0.02 * Math.sin(this.#slowPhase) + 0.02 * this.#wander + 0.004 * normal(this.#random));
    this.#breathHz = (this.#profile.breathRate / 60) * (1 + 0.04 * this.#wander);
  }

  /** Fourth-order Runge-Kutta on the height of the trace; the angle's own equation has a closed solution on its limit cycle. */
  #rungeKutta(dt: number, speed: number): number {
    const slope = (z: number, after: number): number => this.#slope(z, this.#beat + speed * after);
    const z = this.#trace;
    const one = slope(z, 0);
    const two = slope(z + (dt / 2) * one, dt / 2);
    const three = slope(z + (dt / 2) * two, dt / 2);
    return z + (dt / 6) * (one + 2 * two + 2 * three + slope(z + dt * three, dt));
  }

  #slope(z: number, angle: number): number {
    let sum = 0;
    for (const [at, height, width] of attractors) {
      const away = Math.atan2(Math.sin(angle - at), Math.cos(angle - at));
      sum -= height * away * Math.exp((-away * away) / (2 * width * width));
    }
    return sum - (z - 0.005 * Math.sin(this.#breathPhase));
  }

  /** 0 to 1: the pulse arrives about 0.2 s after the R wave, with the notch of the closing valve. */
  get #pulse(): number {
    const seconds = ((((this.#beat / (2 * Math.PI)) % 1) + 1) % 1) * this.#beatS;
    const phase = (((seconds - 0.12) / this.#beatS) % 1 + 1) % 1;
    const bump = (at: number, width: number): number => Math.exp(-((phase - at) ** 2) / (2 * width * width));
    return Math.min(1, bump(0.18, 0.085) + 0.45 * bump(0.42, 0.12) + 0.12 * bump(0.68, 0.16));
  }

  get pleth(): number {
    return this.#pulse * (0.9 + 0.08 * Math.sin(this.#breathPhase)) + 0.03 * Math.sin(this.#breathPhase);
  }

  get pressure(): number {
    return this.diastolic + (this.systolic - this.diastolic) * this.#pulse;
  }

  get breath(): number {
    return Math.sin(this.#breathPhase) + 0.2 * Math.sin(2 * this.#breathPhase + 0.6);
  }

  get heartRate(): number {
    return (60 * Math.max(1, this.#beats.length)) / this.#beats.reduce((sum, beat) => sum + beat, this.#beats.length === 0 ? 60 / this.#profile.heartRate : 0);
  }

  get breathRate(): number {
    return this.#breathHz * 60;
  }

  get spo2(): number {
    return Math.min(100, this.#profile.spo2 + 0.8 * this.#wander);
  }

  get systolic(): number {
    return this.#profile.systolic + 5 * this.#wander + 2 * Math.sin(this.#slowPhase);
  }

  get diastolic(): number {
    return this.#profile.diastolic + 3 * this.#wander + Math.sin(this.#slowPhase);
  }

  get temperature(): number {
    return this.#profile.temperature + 0.1 * this.#wander;
  }
}

export function synthetic(options: SyntheticOptions): Source {
  const durationS = options.durationS ?? null;
  let body = new Body(options);
  let step = 0;
  return {
    name: `synthetic-${options.seed}`, origin: 'synthetic', signals: channels, startUs: null, durationUs: durationS === null ? null : durationS * 1e6, warnings: [],
    read: (fromUs, toUs) => {
      const clock = { hz: stepHz, periodNs: periodNsOf(stepHz) };
      const [from, to] = [firstIndexAt(clock, fromUs), firstIndexAt(clock, toUs)];
      if (from < step) [body, step] = [new Body(options), 0];
      for (; step < from; step++) body.step();
      const values = channels.map((): number[] => []);
      for (; step < to; step++) {
        channels.forEach((one, at) => { if (step % one.every === 0) values[at]?.push(Math.round(one.value(body) / one.scale)); });
        body.step();
      }
      return Promise.resolve(channels.flatMap((one, signal): Piece[] => {
        const samples = Int32Array.from(values[signal] ?? []);
        return samples.length === 0 ? [] : [{ signal, index: Math.ceil(from / one.every), samples }];
      }));
    },
  };
}
