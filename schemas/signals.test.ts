import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signalNamed, signalOf, signals, unitOf } from './signals.js';
import { privatePartition, units } from './units.js';

/** From FACTS §3, typed anew so that a slip in the table shows. */
const known: Readonly<Record<string, readonly [code: number, unit: number, loinc: string | null]>> = {
  MDC_ECG_HEART_RATE: [147842, 264864, '8867-4'],
  MDC_PULS_OXIM_SAT_O2: [150456, 262688, '2708-6'],
  MDC_PULS_OXIM_PULS_RATE: [149530, 264864, '8867-4'],
  MDC_PULS_OXIM_PLETH: [150452, 262656, null],
  MDC_RESP_RATE: [151562, 264928, '9279-1'],
  MDC_TTHOR_RESP_RATE: [151578, 264928, '9279-1'],
  MDC_PRESS_BLD_NONINV_SYS: [150021, 266016, '8480-6'],
  MDC_PRESS_BLD_NONINV_DIA: [150022, 266016, '8462-4'],
  MDC_PRESS_BLD_NONINV_MEAN: [150023, 266016, '8478-0'],
  MDC_PRESS_BLD_ART_ABP: [150036, 266016, null],
  MDC_PRESS_BLD_ART_ABP_SYS: [150037, 266016, '76215-3'],
  MDC_TEMP_BODY: [150364, 268192, '8310-5'],
  MDC_ECG_ELEC_POTL: [131328, 266418, null],
  MDC_ECG_ELEC_POTL_V6: [131336, 266418, null],
  MDC_ECG_ELEC_POTL_III: [131389, 266418, null],
  MDC_ECG_ELEC_POTL_AVF: [131392, 266418, null],
  MDC_ECG_ELEC_POTL_V: [131395, 266418, null],
  MDC_ECG_ELEC_POTL_MCL1: [131404, 266418, null],
  MDC_IMPED_TTHOR: [151780, 266432, null],
  MDC_BLD_PERF_INDEX: [150488, 262688, '61006-3'],
};

for (const [name, [code, unit, loinc]] of Object.entries(known)) {
  test(`${name} has its published codes`, () => {
    const signal = signalOf(code);
    assert.deepEqual([signal?.name, signal?.unit, signal?.loinc], [name, unit, loinc]);
  });
}

test('codes, names and units are unambiguous and complete', () => {
  assert.equal(new Set(signals.map(({ code }) => code)).size, signals.length);
  assert.equal(new Set(signals.map(({ name }) => name)).size, signals.length);
  for (const signal of signals) {
    assert.equal(signalNamed(signal.name), signal);
    assert.ok(signal.min < signal.max, signal.name);
    assert.equal(signal.units[0], signal.unit);
    assert.equal(unitOf(signal.unit)?.ucum, signal.ucum);
    for (const unit of signal.units) assert.ok(unitOf(unit), signal.name);
  }
});

test('our own codes stay in partition 1024 and say so by name; standard ones do not', () => {
  for (const { code, name, standard } of [...signals, ...Object.values(units)]) {
    assert.equal(standard, code < privatePartition, name);
    assert.equal(standard, name.startsWith('MDC_'), name);
    assert.ok(code < 1025 * 65536, name);
  }
});

test('UCUM traps: Celsius is Cel, mmHg is mm[Hg], rates are /min', () => {
  assert.deepEqual([units.celsius.ucum, units.mmHg.ucum, units.beatsPerMinute.ucum], ['Cel', 'mm[Hg]', '/min']);
});
