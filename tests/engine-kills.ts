/** As many as a ward lives through: what its devices sent is read again and compared whole at the end. */
const perWardMax = 50;

/**
 * How often a server, the program, or both are killed in a test on a real engine, split into wards.
 * `SPAMER_ENGINE_KILLS`; without it half as many as of the program on its own files, since each of these is two starts.
 */
export function engineKills(): readonly { readonly ward: number; readonly kills: number }[] {
  const total = Number(process.env['SPAMER_ENGINE_KILLS'] ?? Math.ceil(Number(process.env['SPAMER_KILLS'] ?? 8) / 2));
  const wards = Math.ceil(total / perWardMax);
  return Array.from({ length: wards }, (_, ward) => ({ ward, kills: Math.floor(total / wards) + (ward < total % wards ? 1 : 0) }));
}

/** Kills of a test of one part, which takes a second each. */
export const partKills = Number(process.env['SPAMER_ENGINE_KILLS'] ?? 5);
