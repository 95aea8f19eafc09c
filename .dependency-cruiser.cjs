// DESIGN §8 as rules: imports run one way, nothing goes round in a circle, and only app/ names a product.
const order = {
  core: [],
  schemas: ['core'],
  log: ['core', 'schemas'],
  registry: ['core', 'schemas'],
  security: ['core', 'schemas'],
  ingest: ['core', 'schemas', 'log', 'registry', 'security'],
  processors: ['core', 'schemas', 'log', 'registry', 'security'],
  sinks: ['core', 'schemas', 'log', 'registry', 'security'],
  query: ['core', 'schemas', 'log', 'registry', 'security'],
  'device-emulator': ['core', 'schemas'],
  'load-tests': ['core', 'schemas', 'device-emulator'],
  console: [],
  app: ['core', 'schemas', 'log', 'registry', 'security', 'ingest', 'processors', 'sinks', 'query'],
  cli: ['core', 'schemas', 'log', 'registry', 'security', 'ingest', 'processors', 'sinks', 'query', 'app', 'device-emulator'],
};
const tests = '\\.(test|contract|bench)\\.ts$';

module.exports = {
  forbidden: [
    // A type counts as much as a value: two files that can't be understood apart are one file in two pieces.
    { name: 'no-cycle', severity: 'error', from: {}, to: { circular: true } },
    ...Object.entries(order).map(([folder, allowed]) => ({
      name: `${folder}-imports`,
      severity: 'error',
      from: { path: `^${folder}/`, pathNot: tests },
      to: { path: `^(${Object.keys(order).join('|')})/`, pathNot: `^(${[folder, ...allowed].join('|')})/` },
    })),
    {
      name: 'products-only-in-app',
      severity: 'error',
      comment: 'A file named after a product is imported by app, its own folder\'s product files, and tests.',
      from: { pathNot: [tests, '^app/', '^tests/', '(lmdb|kafka|duckdb|clickhouse|postgres)[^/]*\\.ts$'] },
      to: { path: '^(log|registry|sinks)/(lmdb|kafka|duckdb|clickhouse|postgres)' },
    },
    { name: 'node-jose-in-one-file', severity: 'error', from: { pathNot: ['^security/jose\\.ts$', tests] }, to: { path: 'node_modules/node-jose' } },
    { name: 'resolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    // What k6 runs imports k6's own modules.
    exclude: '(^dist|^tests/servers)/|^load-tests/k6/.*\\.js$',
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
  },
};
