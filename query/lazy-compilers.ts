import serializerSelector from '@fastify/fast-json-stringify-compiler';
import type { FastifySchemaCompiler, FastifyServerOptions } from 'fastify';
import type { TSchema } from 'typebox';
import { SpamerError } from '../core/errors.js';
import type { Api } from './api.js';

type Factories = NonNullable<NonNullable<NonNullable<FastifyServerOptions['schemaController']>['compilersFactory']>>;
type SerializerFactory = NonNullable<Factories['buildSerializer']>;

type Library = typeof import('@fastify/type-provider-typebox');

/** Half of all that the API's libraries take to be read, and no start needs it. */
let library: Library | undefined;

/** Has requests checked by their routes' schemas. To be called before other hooks: what compiles these is read with the first request. */
export function installValidator(api: Api): void {
  api.setValidatorCompiler(lazyValidator);
  api.addHook('onRequest', async () => { library ??= await import('@fastify/type-provider-typebox'); });
}

/** Compiles what checks a request when the first comes: of some hundred routes most are not asked for in most runs, and a start waits for none. */
const lazyValidator: FastifySchemaCompiler<TSchema> = (route) => {
  let validate: ReturnType<Library['TypeBoxValidatorCompiler']> | undefined;
  return (input: unknown) => {
    if (library === undefined) throw new SpamerError('internal', 'a request is checked before it has come');
    return (validate ??= library.TypeBoxValidatorCompiler(route))(input);
  };
};

/** The same for what writes answers. */
export const lazySerializers: SerializerFactory = (schemas, options) => {
  const compile = serializerSelector()(schemas, options);
  return (route) => {
    let serialize: ReturnType<typeof compile> | undefined;
    return (answer: unknown) => (serialize ??= compile(route))(answer);
  };
};
