import serializerSelector from '@fastify/fast-json-stringify-compiler';
import { TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox';
import type { FastifySchemaCompiler, FastifyServerOptions } from 'fastify';
import type { TSchema } from 'typebox';

type Factories = NonNullable<NonNullable<NonNullable<FastifyServerOptions['schemaController']>['compilersFactory']>>;
type SerializerFactory = NonNullable<Factories['buildSerializer']>;

/** Compiles what checks a request when the first comes: of some hundred routes most are not asked for in most runs, and a start waits for none. */
export const lazyValidator: FastifySchemaCompiler<TSchema> = (route) => {
  let validate: ReturnType<typeof TypeBoxValidatorCompiler> | undefined;
  return (input: unknown) => (validate ??= TypeBoxValidatorCompiler(route))(input);
};

/** The same for what writes answers. */
export const lazySerializers: SerializerFactory = (schemas, options) => {
  const compile = serializerSelector()(schemas, options);
  return (route) => {
    let serialize: ReturnType<typeof compile> | undefined;
    return (answer: unknown) => (serialize ??= compile(route))(answer);
  };
};
