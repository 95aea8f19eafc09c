import { systemClock } from '../core/clock.js';
import type { Config } from '../core/config.js';
import { micros, type PatientId } from '../core/ids.js';
import { SpamerError } from '../core/errors.js';
import type { Journal } from '../core/journal.js';
import { limits } from '../core/limits.js';
import { IngestServer, ingestDefaults } from '../ingest/server.js';
import type { Writer } from '../log/log.js';
import { ingestActions } from '../query/actions.js';
import type { Decider } from '../query/ports.js';
import type { DeviceEntry } from '../registry/records.js';
import { Sealer } from '../security/envelope.js';
import { tokenDevice, verifyDeviceToken } from '../security/tokens.js';
import type { Custodian } from './custodian.js';
import { openFilesMax, socketsMax } from './descriptors.js';
import type { Remote } from './rpc.js';

/** The devices' door, with the custodian's registry and keys behind it. */
export function startIngest(config: Config, writer: Writer, custodian: Pick<Remote<Custodian>, 'deviceEntry' | 'current'>, policy: Decider, journal: Journal): Promise<IngestServer> {
  const { tls_cert_file: certFile, tls_key_file: keyFile } = config;
  const sockets = socketsMax(openFilesMax());
  if (sockets < config.connections_max) journal.info('the limit of open files allows fewer device connections than connections_max', { count: sockets });
  return IngestServer.start({
    writer,
    journal,
    devices: custodian,
    tokens: {
      verify: async (token) => {
        const entry = await custodian.deviceEntry(tokenDevice(token));
        if (entry === null || !mayStream(policy, entry)) throw new SpamerError('unauthenticated', 'the token is not valid');
        const { device, jtiHash, expiresAt } = verifyDeviceToken(token, entry.publicKey, micros(systemClock.now()), config.clock_skew_max_s);
        return { device, id: jtiHash.toString('hex'), expiresAtUs: expiresAt };
      },
    },
    // A sealer is one session of nonces: this thread seals with it and no other does.
    sealFor: async (patient: PatientId) => {
      const key = await custodian.current(patient);
      if (key === null) return null;
      const sealer = new Sealer({ ...key, secret: Buffer.from(key.secret) });
      return (plain, context) => sealer.seal(plain, context);
    },
    settings: {
      ...ingestDefaults,
      host: config.ingest_host,
      port: config.ingest_port,
      tls: certFile === undefined || keyFile === undefined ? null : { certFile, keyFile },
      partitions: config.log_partitions,
      framesPerS: config.device_frames_per_s_max,
      bytesPerS: config.device_bytes_per_s_max,
      socketsMax: sockets,
      limits: { ...limits, connectionsMax: Math.min(config.connections_max, sockets) },
    },
  });
}

/** Decided once a connection: what it may send then stands on that, and a change of the device's state ends it [DENY]. */
function mayStream(policy: Decider, { device, state }: Pick<DeviceEntry, 'device' | 'state'>): boolean {
  const principal = { type: 'Device', id: device, attributes: { state } };
  // The door does not tell where a device connects from, and whose data it brings is the binding's to say.
  const context = { purpose: 'operations', consent: 'none', network: 'remote', now: systemClock.now() };
  return policy.decide({ principal, action: ingestActions.connect, resource: { type: 'System', id: 'spamer', attributes: {} }, context }).allowed;
}
