import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { PatientId } from '../core/ids.js';
import { ageAt, assignGroups, generalize, zip3Of, type Attributes, type Level, type Member, type ReleasedMember } from './groups.js';

const levels: Level[] = [{ ageYears: 10, sex: true, zip3: true }, { ageYears: 20, sex: true }, { sex: true }, {}];
const attributes = (age: number | null, sex: Attributes['sex'], zip3 = '021'): Attributes => ({ age, sex, zip3 });

test('[ANON] ages: 89 stays 89, more becomes 90+, no class reaches over 89', () => {
  assert.equal(ageAt('1937-06-15', '2026-06-15'), 89);
  assert.equal(ageAt('1937-06-15', '2027-06-14'), 89);
  assert.equal(ageAt('1937-06-15', '2027-06-15'), 90);
  assert.equal(ageAt('1900-01-01', '2026-06-15'), 90);
  assert.equal(ageAt('2030-01-01', '2026-06-15'), 0);
  assert.equal(ageAt(null, '2026-06-15'), null);
  const age = (years: number | null, width: number): string | undefined => generalize(attributes(years, 'F'), { ageYears: width })['age'];
  assert.deepEqual([age(0, 10), age(45, 10), age(89, 10), age(90, 10), age(89, 20), age(89, 1), age(89, 40), age(null, 10)], ['0-9', '40-49', '80-89', '90+', '80-89', '89', '80-89', 'unknown']);
});

test('[ANON] ZIP3: small areas, military, malformed and unknown codes become 000', () => {
  for (const prefix of '036 059 102 202 203 204 205 369 556 692 753 772 821 823 878 879 884 893 090 340 962 000'.split(' ')) assert.equal(zip3Of(`${prefix}01`), '000');
  for (const zip of [null, '', '0213', '021390', 'SW1A 1AA', '02139-', ' 02139', '٠٢١٣٩']) assert.equal(zip3Of(zip), '000');
  assert.equal(zip3Of('02139'), '021');
  assert.equal(zip3Of('02139-4307'), '021');
});

test('[ANON] a level shows what it names and nothing else', () => {
  const one = attributes(45, 'F');
  assert.deepEqual(levels.map((level) => generalize(one, level)), [{ age: '40-49', sex: 'F', zip3: '021' }, { age: '40-59', sex: 'F' }, { sex: 'F' }, {}]);
});

const member = (id: number, at: Attributes): Member => ({ patient: `p${id}` as PatientId, attributes: at });

test('[ANON] groups: finest level that reaches k; a released class takes newcomers; others wait', () => {
  const three = [1, 2, 3].map((id) => member(id, attributes(45, 'F')));
  assert.equal(assignGroups(levels.slice(0, 3), 3, [], three.slice(0, 2)).size, 0);
  assert.deepEqual([...assignGroups(levels, 3, [], three)], [['p1', 0], ['p2', 0], ['p3', 0]]);
  const released = three.map((one) => ({ ...one, level: 0 }));
  assert.deepEqual([...assignGroups(levels.slice(0, 3), 3, released, [member(4, attributes(41, 'F')), member(5, attributes(71, 'F'))])], [['p4', 0]]);
  const sameTwice = [member(1, attributes(45, 'F')), member(1, attributes(45, 'F')), member(1, attributes(45, 'F'))];
  assert.equal(assignGroups(levels, 3, [], sameTwice).size, 0, 'k counts distinct patients');
});

test('[ANON] whatever the order of arrival, every released class has k distinct patients and nobody moves', () => {
  const person = fc.record({ age: fc.option(fc.integer({ min: 0, max: 90 })), sex: fc.constantFrom('F' as const, 'M' as const), zip3: fc.constantFrom('021', '100', '000') });
  fc.assert(
    fc.property(fc.array(person, { maxLength: 40 }), fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 4 }), (people, k, levelCount) => {
      const used = levels.slice(0, levelCount);
      const released: ReleasedMember[] = [];
      let waiting: Member[] = [];
      for (const [id, one] of people.entries()) {
        waiting.push(member(id, one));
        const assigned = assignGroups(used, k, released, waiting);
        for (const each of waiting) {
          const level = assigned.get(each.patient);
          if (level !== undefined) released.push({ ...each, level });
        }
        waiting = waiting.filter(({ patient }) => !assigned.has(patient));
        const classes = new Map<string, number>();
        for (const each of released) {
          const name = `${each.level}${JSON.stringify(generalize(each.attributes, used[each.level] ?? {}))}`;
          classes.set(name, (classes.get(name) ?? 0) + 1);
        }
        for (const size of classes.values()) assert.ok(size >= k);
      }
      const coarsest = used.at(-1) ?? {};
      if (Object.keys(coarsest).length === 0) assert.ok(waiting.length < k, 'with an empty last level fewer than k wait');
    }),
    { numRuns: 200 },
  );
});
