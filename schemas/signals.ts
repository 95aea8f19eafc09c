/**
 * The signals that the platform knows: IEEE 11073-10101 code (partition 2 × 65536 + term), LOINC for export, UCUM, the unit
 * that is expected and the range outside which a sample in that unit is rejected. Where the standard has no code that we
 * could verify, the code is from partition 1024, which it leaves to implementers, and the name starts with SPAMER_.
 */
import { privatePartition, unitOf, units, type Unit } from './units.js';

export { unitOf, units, type Unit } from './units.js';

export interface Signal {
  readonly code: number;
  readonly name: string;
  readonly label: string;
  readonly kind: 'wave' | 'numeric';
  readonly loinc: string | null;
  /** MDC code of the expected unit, and its UCUM text. */
  readonly unit: number;
  readonly ucum: string;
  /** Every unit that is accepted, the expected one first. */
  readonly units: readonly number[];
  /** Inclusive bounds in the expected unit; infinite where none is sensible. */
  readonly min: number;
  readonly max: number;
  /** False for this program's own codes. */
  readonly standard: boolean;
}

type Row = readonly [term: number, name: string, label: string, loinc: string | null, min: number, max: number];

const anyValue: readonly [number, number] = [-Infinity, Infinity];
const scada = 2 * 65536;

function table(base: number, kind: Signal['kind'], accepted: readonly [Unit, ...Unit[]], rows: readonly Row[]): readonly Signal[] {
  const [unit] = accepted;
  return rows.map(([term, name, label, loinc, min, max]) => ({
    code: base + term, name, label, kind, loinc, unit: unit.code, ucum: unit.ucum, units: accepted.map(({ code }) => code), min, max, standard: base === scada,
  }));
}

const { adu, dimensionless, millivolt, microvolt, volt, ohm, mmHg, kilopascal, percent, celsius } = units;

const ecg = (term: number, lead: string, label: string): Row => [term, lead === '' ? 'MDC_ECG_ELEC_POTL' : `MDC_ECG_ELEC_POTL_${lead}`, label, null, -50, 50];

const ecgLeads: readonly Row[] = [
  ecg(256, '', 'ECG'), ecg(257, 'I', 'ECG I'), ecg(258, 'II', 'ECG II'),
  ecg(259, 'V1', 'ECG V1'), ecg(260, 'V2', 'ECG V2'), ecg(261, 'V3', 'ECG V3'), ecg(262, 'V4', 'ECG V4'), ecg(263, 'V5', 'ECG V5'), ecg(264, 'V6', 'ECG V6'),
  ecg(317, 'III', 'ECG III'), ecg(318, 'AVR', 'ECG aVR'), ecg(319, 'AVL', 'ECG aVL'), ecg(320, 'AVF', 'ECG aVF'),
  ecg(323, 'V', 'ECG V'), ecg(331, 'MCL', 'ECG MCL'), ecg(332, 'MCL1', 'ECG MCL1'),
];

const pressureWaves: readonly Row[] = [
  [18944, 'MDC_PRESS_BLD', 'Pressure', null, -100, 400],
  [18960, 'MDC_PRESS_BLD_ART', 'ART', null, -100, 400],
  [18964, 'MDC_PRESS_BLD_ART_ABP', 'ABP', null, -100, 400],
  [18972, 'MDC_PRESS_BLD_ART_PULM', 'PAP', null, -100, 400],
  [19012, 'MDC_PRESS_BLD_VEN_CENT', 'CVP', null, -100, 400],
  [22536, 'MDC_PRESS_INTRA_CRAN', 'ICP', null, -100, 400],
];

const pressureNumerics: readonly Row[] = [
  [18949, 'MDC_PRESS_BLD_NONINV_SYS', 'NIBP sys', '8480-6', 0, 400],
  [18950, 'MDC_PRESS_BLD_NONINV_DIA', 'NIBP dia', '8462-4', 0, 300],
  [18951, 'MDC_PRESS_BLD_NONINV_MEAN', 'NIBP mean', '8478-0', 0, 300],
  [18961, 'MDC_PRESS_BLD_ART_SYS', 'ART sys', '76215-3', 0, 400],
  [18962, 'MDC_PRESS_BLD_ART_DIA', 'ART dia', '76213-8', 0, 300],
  [18963, 'MDC_PRESS_BLD_ART_MEAN', 'ART mean', '76214-6', 0, 300],
  [18965, 'MDC_PRESS_BLD_ART_ABP_SYS', 'ABP sys', '76215-3', 0, 400],
  [18966, 'MDC_PRESS_BLD_ART_ABP_DIA', 'ABP dia', '76213-8', 0, 300],
  [18967, 'MDC_PRESS_BLD_ART_ABP_MEAN', 'ABP mean', '76214-6', 0, 300],
  [18973, 'MDC_PRESS_BLD_ART_PULM_SYS', 'PAP sys', null, -20, 200],
  [18974, 'MDC_PRESS_BLD_ART_PULM_DIA', 'PAP dia', null, -20, 200],
  [18975, 'MDC_PRESS_BLD_ART_PULM_MEAN', 'PAP mean', null, -20, 200],
  [19015, 'MDC_PRESS_BLD_VEN_CENT_MEAN', 'CVP mean', '60985-9', -30, 100],
  [22539, 'MDC_PRESS_INTRA_CRAN_MEAN', 'ICP mean', null, -30, 200],
  [20656, 'MDC_AWAY_CO2_ET', 'EtCO2', null, 0, 150],
];

const heartRates: readonly Row[] = [
  [16770, 'MDC_ECG_HEART_RATE', 'HR', '8867-4', 0, 300],
  [18458, 'MDC_PULS_OXIM_PULS_RATE', 'Pulse', '8867-4', 0, 300],
  [18442, 'MDC_PULS_RATE', 'Pulse rate', '8867-4', 0, 300],
];

const breathRates: readonly Row[] = [
  [20490, 'MDC_RESP_RATE', 'RR', '9279-1', 0, 70],
  [20506, 'MDC_TTHOR_RESP_RATE', 'RR impedance', '9279-1', 0, 70],
];

const percentages: readonly Row[] = [
  [19384, 'MDC_PULS_OXIM_SAT_O2', 'SpO2', '2708-6', 0, 100],
  [19252, 'MDC_SAT_O2_ART', 'SaO2', '2708-6', 0, 100],
  [19416, 'MDC_BLD_PERF_INDEX', 'PI', '61006-3', 0, 100],
];

const temperatures: readonly Row[] = [
  [19272, 'MDC_TEMP', 'Temp', '8310-5', 10, 50],
  [19292, 'MDC_TEMP_BODY', 'Temp body', '8310-5', 10, 50],
  [19296, 'MDC_TEMP_CORE', 'Temp core', null, 10, 50],
  [19316, 'MDC_TEMP_SKIN', 'Temp skin', null, 10, 50],
];

/** Every signal. */
export const signals: readonly Signal[] = [
  ...table(scada, 'wave', [millivolt, microvolt, volt, adu, dimensionless], ecgLeads),
  ...table(scada, 'wave', [mmHg, kilopascal, adu, dimensionless], pressureWaves),
  ...table(scada, 'wave', [dimensionless, percent, volt, millivolt, adu], [[19380, 'MDC_PULS_OXIM_PLETH', 'Pleth', null, ...anyValue]]),
  ...table(scada, 'wave', [dimensionless, volt, millivolt, ohm, adu], [[20480, 'MDC_RESP', 'Resp', null, ...anyValue]]),
  ...table(scada, 'wave', [ohm, dimensionless, volt, millivolt, adu], [[20708, 'MDC_IMPED_TTHOR', 'Resp impedance', null, ...anyValue]]),
  ...table(scada, 'wave', [mmHg, kilopascal, percent, adu], [[20652, 'MDC_AWAY_CO2', 'CO2', null, -20, 200]]),
  ...table(scada, 'numeric', [units.beatsPerMinute], heartRates),
  ...table(scada, 'numeric', [units.breathsPerMinute], breathRates),
  ...table(scada, 'numeric', [percent], percentages),
  ...table(scada, 'numeric', [mmHg, kilopascal], pressureNumerics),
  ...table(scada, 'numeric', [celsius], temperatures),
  ...table(privatePartition, 'wave', [millivolt, microvolt, adu], [[4096, 'SPAMER_ECG_ELEC_POTL_MLII', 'ECG MLII', null, -50, 50]]),
  ...table(privatePartition, 'wave', [units.microsiemens, adu], [[4097, 'SPAMER_EDA', 'EDA', null, -10, 1000]]),
  ...table(privatePartition, 'wave', [units.gravity, adu], [
    [4098, 'SPAMER_ACCEL_X', 'Acc x', null, -200, 200], [4099, 'SPAMER_ACCEL_Y', 'Acc y', null, -200, 200], [4100, 'SPAMER_ACCEL_Z', 'Acc z', null, -200, 200],
  ]),
  ...table(privatePartition, 'wave', [celsius, adu], [[4101, 'SPAMER_TEMP_SKIN_WAVE', 'Temp skin (sampled)', null, 0, 60]]),
  ...table(privatePartition, 'numeric', [units.millisecond, units.second], [[4102, 'SPAMER_PULSE_INTERVAL', 'Beat to beat', null, 0, 10_000]]),
];

const byCode = new Map<number, Signal>(signals.map((signal) => [signal.code, signal]));

/** The signal of a code, undefined when unknown. */
export function signalOf(code: number): Signal | undefined {
  return byCode.get(code);
}

const byName = new Map<string, Signal>(signals.map((signal) => [signal.name, signal]));

/** The signal of a name such as MDC_ECG_HEART_RATE. */
export function signalNamed(name: string): Signal | undefined {
  return byName.get(name);
}

/** UCUM text of a unit code, '?' when unknown; for people. */
export function ucumOf(code: number): string {
  return unitOf(code)?.ucum ?? '?';
}
