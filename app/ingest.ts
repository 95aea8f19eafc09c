import { systemClock } from '../core/clock.js';
import { certificateFiles, type Config } from '../core/config.js';
import { micros, type DeviceId, type PatientId } from '../core/ids.js';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import type { DoorBook } from '../ingest/handshake.js';
import { IngestServer, ingestDefaults } from '../ingest/server.js';
import type { Writer } from '../log/log.js';
import { ingestActions } from '../query/actions.js';
import type { Decider } from '../query/ports.js';
import type { DeviceEntry } from '../registry/records.js';
import type { PolicyDecision } from '../security/policy.js';
import { tokenDevice, verifyDeviceToken } from '../security/tokens.js';
import type { Custodian } from './custodian.js';
import { openFilesMax, socketsMax } from './descriptors.js';
import type { Remote } from './rpc.js';

/** Who seals for whom; null: the patient's key is gone. `Sealers`, but where a benchmark asks what sealing costs. */
export interface SealerSource {
  of(patient: PatientId): Promise<{ seal(plain: Uint8Array, context: Uint8Array): Buffer } | null>;
}

/** The devices' door, with the custodian's registry and keys behind it. */
export function startIngest(config: Config, writers: ReadonlyMap<number, Writer>, custodian: Pick<Remote<Custodian>, 'deviceEntry'>, sealers: SealerSource, policy: Decider, journal: Journal, book: DoorBook, elsewhere?: (share: number) => string | null): Promise<IngestServer> {
  const sockets = socketsMax(openFilesMax());
  if (sockets < config.connections_max) journal.info('the limit of open files allows fewer device connections than connections_max', { count: sockets });
  return IngestServer.start({
    writers,
    journal,
    devices: custodian,
    book,
    ...(elsewhere === undefined ? {} : { elsewhere }),
    tokens: {
      verify: async (token) => {
        const entry = await custodian.deviceEntry(tokenDevice(token));
        const decision = entry === null ? null : mayStream(policy, entry);
        if (entry === null || decision?.allowed !== true) throw new SpamerError('unauthenticated', 'the token is not valid');
        const { device, jtiHash, expiresAt } = verifyDeviceToken(token, entry.publicKey, micros(systemClock.now()), config.clock_skew_max_s);
        return { device, id: jtiHash.toString('hex'), expiresAtUs: expiresAt, decidedBy: decision.policies.join(',') };
      },
    },
    sealFor: async (patient: PatientId) => {
      const sealer = await sealers.of(patient);
      return sealer === null ? null : (plain, context) => sealer.seal(plain, context);
    },
    settings: {
      ...ingestDefaults,
      host: config.ingest_host,
      port: config.ingest_port,
      tls: certificateFiles(config).ingest,
      partitions: config.log_partitions,
      shares: config.log_shares,
      framesPerS: config.device_frames_per_s_max,
      bytesPerS: config.device_bytes_per_s_max,
      socketsMax: sockets,
      limits: { ...limits, connectionsMax: Math.min(config.connections_max, sockets) },
    },
  });
}

/** Has everything read that the first device's admission is decided by, while nobody waits: an eighth of a second's work. */
export function prepareDoor(policy: Decider): void {
  mayStream(policy, { device: '00000000-0000-0000-0000-000000000000' as DeviceId, state: 'revoked' });
}

/** Decided once a connection: what it may send then stands on that, and a change of the device's state ends it [DENY]. */
function mayStream(policy: Decider, { device, state }: Pick<DeviceEntry, 'device' | 'state'>): PolicyDecision {
  const principal = { type: 'Device', id: device, attributes: { state } };
  // The door does not tell where a device connects from, and whose data it brings is the binding's to say.
  const context = { purpose: 'operations', consent: 'none', network: 'remote', now: systemClock.now() };
  return policy.decide({ principal, action: ingestActions.connect, resource: { type: 'System', id: 'spamer', attributes: {} }, context });
}
