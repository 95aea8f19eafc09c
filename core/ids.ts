/**
 * Branded identifiers: at run time plain strings, at compile time not interchangeable.
 * A `PatientId` does not compile where a `Pseudonym` is asked, which keeps identities out of the analytics path by type.
 */
declare const brand: unique symbol;
export type Branded<Base, Name extends string> = Base & { readonly [brand]: Name };

/** Internal random UUID of a patient; it is no record number and says nothing about the person. */
export type PatientId = Branded<string, 'PatientId'>;
/** Internal random UUID of a device. */
export type DeviceId = Branded<string, 'DeviceId'>;
/** Short name of a study, chosen by its owner: `[a-z0-9-]{1,64}`. */
export type StudyId = Branded<string, 'StudyId'>;
/** Random UUID that stands for one patient in one study; not derived from anything about the person. */
export type Pseudonym = Branded<string, 'Pseudonym'>;
/** Integer microseconds since the Unix epoch, UTC. Exact in a double until the year 2255. */
export type Micros = Branded<number, 'Micros'>;

const uuidShape = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const studyShape = /^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$/;

/** Each reader returns the branded id, or null when the text has not its shape. */
export const patientId = (text: string): PatientId | null => (uuidShape.test(text) ? (text as PatientId) : null);
export const deviceId = (text: string): DeviceId | null => (uuidShape.test(text) ? (text as DeviceId) : null);
export const pseudonym = (text: string): Pseudonym | null => (uuidShape.test(text) ? (text as Pseudonym) : null);
export const studyId = (text: string): StudyId | null => (studyShape.test(text) ? (text as StudyId) : null);
/** The caller vouches that `value` is an integer count of microseconds. */
export const micros = (value: number): Micros => value as Micros;

/** 16 bytes of a UUID, as they stand in Avro `fixed(16)` fields and in log keys. */
export function uuidBytes(id: PatientId | DeviceId | Pseudonym): Buffer {
  return Buffer.from(id.replaceAll('-', ''), 'hex');
}

/** The UUID text of 16 bytes; the caller picks the brand that the field's schema promises. */
export function uuidText<Id extends PatientId | DeviceId | Pseudonym>(bytes: Uint8Array): Id {
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, 16).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}` as Id;
}
