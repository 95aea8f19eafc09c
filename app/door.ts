import type { DeviceId } from '../core/ids.js';
import { SpamerError } from '../core/errors.js';
import type { CommandAnswer } from '../ingest/commands.js';
import type { ConnectedDevice, IngestServer } from '../ingest/server.js';
import type { ClusterApi } from './cluster.js';
import type { Remote } from './rpc.js';

/** The devices' door as the HTTP API asks it, in this process or in others. */
export interface Door {
  /** Where devices connect; null: nowhere. */
  url(): Promise<string | null>;
  connected(): Promise<readonly ConnectedDevice[]>;
  /** A device's state or bindings have changed: when this resolves no frame is taken any more that they forbid. */
  refresh(device: DeviceId): Promise<void>;
  /** @throws SpamerError `unreachable` when the device is not connected. */
  sendCommand(device: DeviceId, name: string, args: Record<string, string>, timeoutMs: number): Promise<CommandAnswer>;
}

export function localDoor(ingest: IngestServer | null): Door {
  return {
    url: async () => ingest?.url ?? null,
    connected: async () => ingest?.connected() ?? [],
    refresh: async (device) => { await ingest?.refresh(device); },
    sendCommand: async (device, name, args, timeoutMs) => {
      if (ingest === null) throw new SpamerError('unreachable', 'the device port is not running');
      return ingest.sendCommand(device, name, args, timeoutMs);
    },
  };
}

export function remoteDoor(cluster: Remote<ClusterApi>): Door {
  return { url: () => cluster.stream(), connected: () => cluster.connected(), refresh: (device) => cluster.refresh(device), sendCommand: (device, name, args, timeoutMs) => cluster.sendCommand(device, name, args, timeoutMs) };
}
