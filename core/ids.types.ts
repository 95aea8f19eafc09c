import type { DeviceId, Micros, PatientId, Pseudonym, StudyId } from './ids.js';

/** Compiled, never run: tsc fails here when a brand no longer keeps two kinds of id apart, as each line below must be an error. */
export function brandsKeepApart(patient: PatientId, device: DeviceId, pseudonym: Pseudonym, study: StudyId): unknown {
  // @ts-expect-error a patient is no pseudonym
  const asPseudonym: Pseudonym = patient;
  // @ts-expect-error a pseudonym is no patient
  const asPatient: PatientId = pseudonym;
  // @ts-expect-error a device is no patient
  const deviceAsPatient: PatientId = device;
  // @ts-expect-error a study is no pseudonym
  const studyAsPseudonym: Pseudonym = study;
  // @ts-expect-error text from outside is no id until its reader has looked at it
  const unread: PatientId = '00000000-0000-0000-0000-000000000000';
  // @ts-expect-error a number is no time until the caller vouches for its unit
  const bare: Micros = 1;
  return [asPseudonym, asPatient, deviceAsPatient, studyAsPseudonym, unread, bare];
}
