import { encodeFrameBody } from '../schemas/frames.js';
import { signals, type Signal } from '../schemas/signals.js';
import type { Load } from './generator.js';
import { framesLoad } from './loads.js';

function known(name: string): Signal {
  const found = signals.find((signal) => signal.name === name);
  if (found === undefined) throw new RangeError(`no signal is called ${name}`);
  return found;
}

const waves = ([['MDC_ECG_ELEC_POTL_II', 250, 0.005], ['MDC_PULS_OXIM_PLETH', 125, 0.001], ['MDC_RESP', 62.5, 0.001]] as const)
  .map(([name, hz, scale]) => ({ ...known(name), hz, scale }));

/** No heart rate among them: that is the probe's, which must find its readings again. */
const numerics = ([
  ['MDC_PULS_OXIM_PULS_RATE', 72], ['MDC_PULS_OXIM_SAT_O2', 97], ['MDC_RESP_RATE', 15], ['MDC_PRESS_BLD_NONINV_SYS', 121], ['MDC_PRESS_BLD_NONINV_DIA', 79], ['MDC_TEMP_BODY', 37],
] as const).map(([name, value]) => ({ ...known(name), value }));

export const monitorCodes = [...waves, ...numerics].map(({ code }) => code);

/** Seconds of one frame: every wave has whole samples in it. */
const frameSeconds = 2;

/** Samples of a monitor's frame, numerics included. */
export const samplesPerFrame = waves.reduce((sum, { hz }) => sum + hz * frameSeconds, 0) + numerics.length * frameSeconds;
export const framesPerS = 1 / frameSeconds;

/** A bedside monitor in real time: three waves and six numerics a second, a frame every two seconds; the first one now. */
export function monitor(frames: number, t0 = Date.now() * 1000): Load {
  const shapes = waves.map(({ hz }) => Int32Array.from({ length: hz * frameSeconds }, (_, at) => Math.round(300 * Math.sin((at / hz) * 7) + 20 * Math.sin(at))));
  return framesLoad(frames, 1, (seq) => {
    const from = t0 + (seq - 1) * frameSeconds * 1e6;
    return encodeFrameBody({
      epoch: 1, seq, sentAt: from + frameSeconds * 1e6, events: [],
      waveforms: waves.map(({ code, unit, hz, scale }, which) => ({ code, unit, t0: from, periodNs: 1e9 / hz, scale, offset: 0, samples: shapes[which] ?? new Int32Array() })),
      numerics: numerics.flatMap(({ code, unit, value }) => Array.from({ length: frameSeconds }, (_, second) => ({ code, unit, time: from + second * 1e6, value: value + (seq % 3) }))),
    });
  });
}
