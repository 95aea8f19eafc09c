import type { Config } from '../core/config.js';
import type { Kek } from '../security/kek.js';
import { VaultKek } from '../security/kek-vault.js';

/** The key service that the configuration names; none: the keystore is under its passphrase. */
export function kmsOf(config: Config): Kek | undefined {
  const { kek, vault_address: address, vault_token_file: tokenFile, vault_transit_key: key, vault_transit_mount: mount } = config;
  if (kek === 'passphrase' || address === undefined || tokenFile === undefined) return undefined;
  return new VaultKek({ address, tokenFile, key, mount });
}
