import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Type } from 'typebox';
import { SpamerError } from '../core/errors.js';
import { deviceId, patientId, studyId, type DeviceId, type PatientId, type StudyId } from '../core/ids.js';
import { limits } from '../core/limits.js';

/** The Fastify instance with types that come from the route's schema. */
export type Api = FastifyInstance<RawServerDefault, IncomingMessage, ServerResponse, FastifyBaseLogger, TypeBoxTypeProvider>;

export const Uuid = Type.String({ pattern: '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$', description: 'UUID, lower case.' });
export const Time = Type.String({ maxLength: 40, description: 'RFC 3339 with zone, or integer microseconds.' });
export const Count = Type.Integer({ minimum: 0 });
export const Code = Type.Integer({ description: 'IEEE 11073-10101 code; GET /v1/signals lists them.' });
export const Limit = Type.Optional(Type.Integer({ minimum: 1, maximum: limits.pageRowsMax, description: 'Rows of one page at most.' }));
export const Cursor = Type.Optional(Type.String({ maxLength: 512, description: '`next` of the page before.' }));
export const Attributes = Type.Record(Type.String({ maxLength: 64 }), Type.String({ maxLength: 256 }), { maxProperties: 32 });

/** The answer of a route that sends text of some kind, for the description. */
export const textAnswer = (mediaType: string, description: string, example: string): object => ({ 200: { description, content: { [mediaType]: { schema: Type.String({ description }), example } } } });

const bad = (where: string): SpamerError => new SpamerError('bad_request', 'this id has not the right shape', { where });

export function readPatient(text: string): PatientId {
  const id = patientId(text);
  if (id === null) throw bad('params/patient');
  return id;
}

export function readDevice(text: string): DeviceId {
  const id = deviceId(text);
  if (id === null) throw bad('params/device');
  return id;
}

export function readStudy(text: string): StudyId {
  const id = studyId(text);
  if (id === null) throw bad('params/study');
  return id;
}
