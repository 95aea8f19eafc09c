import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { AvroNamed, SchemaFile } from './types-text.js';

/** The package's `schemas/` folder, seen from dist/schemas. */
export const schemasFolder = fileURLToPath(new URL('../../schemas/', import.meta.url));

export function readSchema(file: string): AvroNamed {
  return JSON.parse(readFileSync(`${schemasFolder}avro/${file}.avsc`, 'utf8')) as AvroNamed;
}

/** Every schema that ids.json names, by id. @throws when a file has no id, since it could not be named on the wire. */
export function readSchemas(): readonly SchemaFile[] {
  const ids = JSON.parse(readFileSync(`${schemasFolder}avro/ids.json`, 'utf8')) as Record<string, string>;
  const named = new Set(Object.values(ids));
  for (const file of readdirSync(`${schemasFolder}avro`)) {
    if (file.endsWith('.avsc') && !named.has(file.slice(0, -5))) throw new TypeError(`schemas/avro/ids.json has no id for ${file}`);
  }
  return Object.entries(ids).map(([id, file]) => ({ id: Number(id), file, schema: readSchema(file) }));
}
