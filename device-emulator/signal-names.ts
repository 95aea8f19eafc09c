/** From what recordings call their signals and units to IEEE 11073 codes. */
import { signalNamed, signalOf, type Signal } from '../schemas/signals.js';
import { privatePartition, units } from '../schemas/units.js';
import type { SourceSignal } from './source.js';

/** Upper case, without blanks, brackets and punctuation. Where a name means a wave or a numeric by its rate, both stand here. */
const waves: Readonly<Record<string, string>> = {
  ECG: 'MDC_ECG_ELEC_POTL', EKG: 'MDC_ECG_ELEC_POTL', I: 'MDC_ECG_ELEC_POTL_I', II: 'MDC_ECG_ELEC_POTL_II', III: 'MDC_ECG_ELEC_POTL_III',
  V: 'MDC_ECG_ELEC_POTL_V', V1: 'MDC_ECG_ELEC_POTL_V1', V2: 'MDC_ECG_ELEC_POTL_V2', V3: 'MDC_ECG_ELEC_POTL_V3', V4: 'MDC_ECG_ELEC_POTL_V4',
  V5: 'MDC_ECG_ELEC_POTL_V5', V6: 'MDC_ECG_ELEC_POTL_V6', AVR: 'MDC_ECG_ELEC_POTL_AVR', AVL: 'MDC_ECG_ELEC_POTL_AVL', AVF: 'MDC_ECG_ELEC_POTL_AVF',
  MCL: 'MDC_ECG_ELEC_POTL_MCL', MCL1: 'MDC_ECG_ELEC_POTL_MCL1', MLII: 'SPAMER_ECG_ELEC_POTL_MLII',
  ABP: 'MDC_PRESS_BLD_ART_ABP', ART: 'MDC_PRESS_BLD_ART', PAP: 'MDC_PRESS_BLD_ART_PULM', CVP: 'MDC_PRESS_BLD_VEN_CENT', ICP: 'MDC_PRESS_INTRA_CRAN',
  PLETH: 'MDC_PULS_OXIM_PLETH', PPG: 'MDC_PULS_OXIM_PLETH', BVP: 'MDC_PULS_OXIM_PLETH', RESP: 'MDC_RESP', RSP: 'MDC_RESP', CO2: 'MDC_AWAY_CO2',
  EDA: 'SPAMER_EDA', ACCX: 'SPAMER_ACCEL_X', ACCY: 'SPAMER_ACCEL_Y', ACCZ: 'SPAMER_ACCEL_Z', TEMPWAVE: 'SPAMER_TEMP_SKIN_WAVE',
};
const numerics: Readonly<Record<string, string>> = {
  HR: 'MDC_ECG_HEART_RATE', HEARTRATE: 'MDC_ECG_HEART_RATE', PULSE: 'MDC_PULS_OXIM_PULS_RATE', PR: 'MDC_PULS_OXIM_PULS_RATE',
  RESP: 'MDC_RESP_RATE', RR: 'MDC_RESP_RATE', RESPRATE: 'MDC_RESP_RATE', SPO2: 'MDC_PULS_OXIM_SAT_O2', SAO2: 'MDC_SAT_O2_ART', PI: 'MDC_BLD_PERF_INDEX',
  ABPSYS: 'MDC_PRESS_BLD_ART_ABP_SYS', ABPDIAS: 'MDC_PRESS_BLD_ART_ABP_DIA', ABPMEAN: 'MDC_PRESS_BLD_ART_ABP_MEAN',
  SYSABP: 'MDC_PRESS_BLD_ART_ABP_SYS', DIASABP: 'MDC_PRESS_BLD_ART_ABP_DIA', MAP: 'MDC_PRESS_BLD_ART_ABP_MEAN',
  NBPSYS: 'MDC_PRESS_BLD_NONINV_SYS', NBPDIAS: 'MDC_PRESS_BLD_NONINV_DIA', NBPMEAN: 'MDC_PRESS_BLD_NONINV_MEAN',
  NISYSABP: 'MDC_PRESS_BLD_NONINV_SYS', NIDIASABP: 'MDC_PRESS_BLD_NONINV_DIA', NIMAP: 'MDC_PRESS_BLD_NONINV_MEAN',
  PAPSYS: 'MDC_PRESS_BLD_ART_PULM_SYS', PAPDIAS: 'MDC_PRESS_BLD_ART_PULM_DIA', PAPMEAN: 'MDC_PRESS_BLD_ART_PULM_MEAN',
  TEMP: 'MDC_TEMP_BODY', ETCO2: 'MDC_AWAY_CO2_ET', PULSERATE: 'MDC_PULS_RATE', IBI: 'SPAMER_PULSE_INTERVAL',
};

const unitCodes: Readonly<Record<string, number>> = {
  mv: units.millivolt.code, uv: units.microvolt.code, 'µv': units.microvolt.code, v: units.volt.code, mmhg: units.mmHg.code, kpa: units.kilopascal.code,
  '%': units.percent.code, nu: units.dimensionless.code, '1': units.dimensionless.code, ohm: units.ohm.code, adu: units.adu.code, counts: units.adu.code,
  degc: units.celsius.code, c: units.celsius.code, us: units.microsiemens.code, g: units.gravity.code, ms: units.millisecond.code, s: units.second.code,
};

/** Slower than this a signal is a row of numerics, not a wave. */
const waveHzMin = 2;
/** Codes for signals that the table does not know; the platform sets them aside and says so. */
const privateSignals = privatePartition + 8192;

export interface Named {
  readonly label: string;
  /** As the recording has it; null when it says nothing. */
  readonly unit: string | null;
  readonly hz: number;
  /** Where a recording says it; else its rate tells. */
  readonly kind?: SourceSignal['kind'];
}

/** Codes for the signals of one record; a name that stands twice gets its code once, so that no two signals share a channel. */
export function codesOf(named: readonly Named[]): Array<Pick<SourceSignal, 'code' | 'unit' | 'kind'>> {
  const taken = new Set<number>();
  return named.map(({ label, unit, hz, kind = hz >= waveHzMin ? 'wave' : 'numeric' }, at) => {
    const known = lookUp(label, kind);
    const code = known !== undefined && !taken.has(known.code) ? known.code : privateSignals + at;
    taken.add(code);
    return { code, kind, unit: unitFor(known, unit) };
  });
}

function lookUp(label: string, kind: SourceSignal['kind']): Signal | undefined {
  const key = label.toUpperCase().replaceAll(/[^A-Z0-9]/g, '');
  const name = kind === 'wave' ? waves[key] ?? waves[key.replace(/^(?:ECG|LEAD|EKG)/, '')] : numerics[key];
  return name === undefined ? undefined : signalNamed(name);
}

/** What files write for "so many a minute", or for nothing: there the signal's own unit is meant. */
const ownUnit = /^(?:|bpm|pm|\/min|1\/min|brpm|rpm|(?:beats|breaths?)\/min|nd)$/i;

/**
 * The unit that a recording names, never another: a signal in a unit that it may not have is set aside by the platform, where
 * taking its own unit instead would turn Fahrenheit into Celsius. A unit that nobody knows makes counts of the numbers.
 */
function unitFor(known: Signal | undefined, unit: string | null): number {
  const text = unit?.trim() ?? '';
  if (ownUnit.test(text)) return known?.unit ?? units.dimensionless.code;
  return unitCodes[text.toLowerCase()] ?? units.adu.code;
}

/** A person's name of a code. */
export function labelOf(code: number): string {
  return signalOf(code)?.label ?? `signal ${code}`;
}

const shortNames = new Map<number, string>();
for (const [short, name] of [...Object.entries(waves), ...Object.entries(numerics)]) {
  const code = signalNamed(name)?.code;
  if (code !== undefined && !shortNames.has(code)) shortNames.set(code, short);
}
const unitNames = new Map<number, string>([
  [units.millivolt.code, 'mV'], [units.microvolt.code, 'uV'], [units.volt.code, 'V'], [units.mmHg.code, 'mmHg'], [units.kilopascal.code, 'kPa'], [units.percent.code, '%'],
  [units.dimensionless.code, 'NU'], [units.ohm.code, 'Ohm'], [units.adu.code, 'adu'], [units.celsius.code, 'degC'], [units.microsiemens.code, 'uS'], [units.gravity.code, 'g'],
  [units.millisecond.code, 'ms'], [units.second.code, 's'], [units.beatsPerMinute.code, 'bpm'], [units.breathsPerMinute.code, 'pm'],
]);

/** Names that files of recordings use; `codesOf` reads them back to the same codes. */
export const shortNameOf = (code: number): string => shortNames.get(code) ?? `S${code}`;
export const unitNameOf = (unit: number): string => unitNames.get(unit) ?? `U${unit}`;
