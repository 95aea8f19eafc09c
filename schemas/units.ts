/**
 * Units by IEEE 11073-10101 code (partition 4 × 65536 + term) and UCUM.
 * Codes from 67108864 on (partition 1024, which the standard leaves to implementers) are this program's own: `standard` is false.
 */
export interface Unit {
  readonly code: number;
  readonly name: string;
  readonly ucum: string;
  readonly label: string;
  readonly standard: boolean;
}

/** First code of partition 1024. */
export const privatePartition = 1024 * 65536;

const standard = (term: number, name: string, ucum: string, label: string): Unit => ({ code: 4 * 65536 + term, name, ucum, label, standard: true });
const own = (term: number, name: string, ucum: string, label: string): Unit => ({ code: privatePartition + term, name, ucum, label, standard: false });

export const units = {
  dimensionless: standard(512, 'MDC_DIM_DIMLESS', '1', ''),
  percent: standard(544, 'MDC_DIM_PERCENT', '%', '%'),
  second: standard(2176, 'MDC_DIM_SEC', 's', 's'),
  millisecond: standard(2194, 'MDC_DIM_MILLI_SEC', 'ms', 'ms'),
  beatsPerMinute: standard(2720, 'MDC_DIM_BEAT_PER_MIN', '/min', '/min'),
  breathsPerMinute: standard(2784, 'MDC_DIM_RESP_PER_MIN', '/min', '/min'),
  kilopascal: standard(3843, 'MDC_DIM_KILO_PASCAL', 'kPa', 'kPa'),
  mmHg: standard(3872, 'MDC_DIM_MMHG', 'mm[Hg]', 'mmHg'),
  volt: standard(4256, 'MDC_DIM_VOLT', 'V', 'V'),
  millivolt: standard(4274, 'MDC_DIM_MILLI_VOLT', 'mV', 'mV'),
  microvolt: standard(4275, 'MDC_DIM_MICRO_VOLT', 'uV', 'µV'),
  ohm: standard(4288, 'MDC_DIM_OHM', 'Ohm', 'Ω'),
  celsius: standard(6048, 'MDC_DIM_DEGC', 'Cel', '°C'),
  /** Counts of a converter whose gain to a physical unit is not known. */
  adu: own(1, 'SPAMER_DIM_ADU', '{adu}', 'adu'),
  microsiemens: own(2, 'SPAMER_DIM_MICRO_SIEMENS', 'uS', 'µS'),
  /** Standard gravity; UCUM `g` alone is gram. */
  gravity: own(3, 'SPAMER_DIM_GRAVITY', '[g]', 'g'),
} as const satisfies Record<string, Unit>;

const byCode = new Map<number, Unit>(Object.values(units).map((unit) => [unit.code, unit]));

/** The unit of a code, undefined when unknown. */
export function unitOf(code: number): Unit | undefined {
  return byCode.get(code);
}
