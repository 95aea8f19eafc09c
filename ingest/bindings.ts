import type { DeviceId, PatientId } from '../core/ids.js';

/** What the registry tells of a device; `until` null: open. Times in µs. */
export interface DeviceEntry {
  readonly state: 'active' | 'suspended' | 'revoked';
  readonly bindings: ReadonlyArray<{ readonly patient: PatientId; readonly from: number; readonly until: number | null }>;
}

export interface DeviceDirectory {
  /** null: no such device. */
  deviceEntry(device: DeviceId): Promise<DeviceEntry | null>;
}

export type Seal = (plain: Uint8Array, context: Uint8Array) => Buffer;
/** null: the patient's key is gone; frames of that binding are then `not_bound`. */
export type SealFor = (patient: PatientId) => Promise<Seal | null>;

/** Whom a device measures, from when until when, and with what its frames of that time are sealed. */
export interface Binding {
  readonly patient: PatientId;
  readonly patientBytes: Buffer;
  readonly from: number;
  readonly until: number | null;
  readonly seal: Seal;
}
