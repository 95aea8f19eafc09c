import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Ajv, type AnySchema } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { parse, parseAllDocuments } from 'yaml';
import { loadConfig, roleNames, settingNames, type Config } from '../core/config.js';
import { Metrics } from '../query/metrics.js';
import { temporaryFolder } from './program.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const text = (file: string): string => readFileSync(join(root, file), 'utf8');
const schemaOf = (file: string): AnySchema => JSON.parse(text(`tests/schemas/${file}`)) as AnySchema;
const composeFiles = ['compose.yaml', 'compose.tls.yaml'];
const manifest = 'deploy/kubernetes/spamer.yaml';

interface Service {
  readonly image?: string;
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly secrets?: readonly string[];
  readonly networks?: readonly string[];
  readonly [name: string]: unknown;
}
interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly networks: Readonly<Record<string, { readonly internal?: boolean }>>;
  readonly secrets: Readonly<Record<string, { readonly file: string }>>;
}

/** With merge keys, and Compose's own tags passed over, as Compose itself reads it. */
const composeOf = (file: string): Compose => parse(text(file), { merge: true, customTags: [{ tag: '!override', collection: 'seq', resolve: (value) => value }] }) as Compose;
const compose = composeOf('compose.yaml');
const services = Object.entries(compose.services);
/** By service: the role of its process. */
const processes = new Map<string, string>([['registry', 'registry'], ['ingest', 'ingest'], ['ingest-2', 'ingest'], ['processors', 'processors'], ['sinks', 'sinks'], ['query', 'query']]);
const ours = [...processes.keys(), 'topics'];
/** `${NAME:-default}` as it is without an .env, and what has to be in it as if it were. */
const withDefaults = (value: string): string => value.replace(/\$\{\w+:-([^}]*)\}/g, '$1').replace(/\$\{\w+:\?[^}]*\}/g, 'devices.example.org');

/** What each role opens, and so the secrets that it may see. */
const secretsOf: Readonly<Record<string, readonly string[]>> = {
  registry: ['line_secret', 'passphrase', 'registry_url'], ingest: ['line_secret'], processors: ['line_secret'],
  sinks: ['clickhouse_password', 'clickhouse_read_password', 'line_secret'], query: ['clickhouse_read_password', 'line_secret'], topics: [],
};

/** The program's configuration from the environment of a container whose secret files hold something. */
function configOf(environment: Readonly<Record<string, string>>, dir: string, more: Readonly<Record<string, string>> = {}): Config {
  const given = Object.entries({ ...environment, ...more }).map(([name, value]) => {
    if (!value.startsWith('/run/secrets/') || /_TLS_/.test(name)) return [name, withDefaults(value)];
    const file = join(dir, value.split('/').at(-1) ?? '');
    writeFileSync(file, name.includes('REGISTRY_URL') ? 'postgres://spamer:x@postgresql/spamer?sslmode=verify-full' : 'x'.repeat(43), { mode: 0o600 });
    return [name, file];
  });
  return loadConfig({ environment: Object.fromEntries(given) as Record<string, string>, cwd: '/' });
}

function assertValid(validate: { (value: unknown): unknown; errors?: unknown }, value: unknown, what: string): void {
  assert.ok(validate(value), `${what}: ${JSON.stringify(validate.errors, null, 1)}`);
}

test('the compose files are what the Compose specification says, and the check sees a slip', () => {
  const ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false });
  const validate = ajv.compile(schemaOf('compose-spec.json'));
  for (const file of composeFiles) assertValid(validate, composeOf(file), file);
  assert.equal(validate({ ...compose, services: { ...compose.services, query: { ...compose.services['query'], read_onyl: true } } }), false);
});

interface Labels { readonly [name: string]: string }
interface Variable { readonly name: string; readonly value?: string }
interface Container {
  readonly name: string;
  readonly args: readonly string[];
  readonly env: readonly Variable[];
  readonly ports?: ReadonlyArray<{ readonly name: string }>;
  readonly volumeMounts: ReadonlyArray<{ readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }>;
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly [name: string]: unknown;
}
interface Pod {
  readonly metadata: { readonly labels: Labels };
  readonly spec: { readonly containers: readonly Container[]; readonly initContainers?: readonly Container[]; readonly terminationGracePeriodSeconds: number; readonly volumes: ReadonlyArray<{ readonly name: string; readonly secret?: { readonly secretName: string; readonly items?: ReadonlyArray<{ readonly key: string; readonly path: string }> } }> };
}
interface Kubernetes {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: { readonly replicas: number; readonly template: Pod; readonly selector: Labels & { readonly matchLabels: Labels }; readonly podSelector: { readonly matchLabels: Labels }; readonly ingress: unknown; readonly ports: ReadonlyArray<{ readonly targetPort: string }>; readonly serviceName: string };
}
const documents = parseAllDocuments(text(manifest), { merge: true }).map((document) => document.toJS() as Kubernetes);
const ofKind = (...kinds: readonly string[]): Kubernetes[] => documents.filter(({ kind }) => kinds.includes(kind));
const pods = new Map(ofKind('StatefulSet', 'Deployment').map((set) => [set.spec.template.metadata.labels['app.kubernetes.io/component'] ?? '', set]));
const covers = (selector: Labels, { metadata: { labels } }: Pod): boolean => Object.entries(selector).every(([name, value]) => name === 'statefulset.kubernetes.io/pod-name' || labels[name] === value);

test('the Kubernetes manifests are what its API takes, strictly, and the check sees a slip', () => {
  const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
  ajv.addSchema(schemaOf('kubernetes.json'), 'api');
  const group: Readonly<Record<string, string>> = { v1: 'core.v1', 'apps/v1': 'apps.v1', 'networking.k8s.io/v1': 'networking.v1', 'policy/v1': 'policy.v1' };
  assert.deepEqual(new Set(documents.map(({ kind }) => kind)), new Set(['ServiceAccount', 'Service', 'StatefulSet', 'Deployment', 'PodDisruptionBudget', 'NetworkPolicy']));
  for (const document of documents) {
    const validate = ajv.getSchema(`api#/$defs/io.k8s.api.${group[document.apiVersion] ?? ''}.${document.kind}`);
    assert.ok(validate, document.kind);
    assertValid(validate, document, `${document.kind} ${document.metadata.name}`);
    assert.ok(!validate({ ...document, spec: { ...document.spec, replcas: 2 } }), `${document.kind}: the check sees a slip`);
  }
});

test('each role has pods, what selects them does, and the line is open to the program only', () => {
  assert.deepEqual([...pods.keys()].sort(), [...roleNames].sort());
  assert.deepEqual([pods.get('registry')?.spec.replicas, pods.get('sinks')?.spec.replicas], [1, 2]);
  for (const [role, { spec: { template, selector } }] of pods) {
    assert.ok(covers(selector.matchLabels, template), role);
    const [container] = template.spec.containers;
    assert.ok(template.spec.terminationGracePeriodSeconds > 10, role);
    for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe']) assert.ok(container?.[probe] !== undefined, `${role}: ${probe}`);
    for (const each of [container, ...(template.spec.initContainers ?? [])]) {
      assert.deepEqual(each?.securityContext, { readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } }, role);
      for (const { name } of each?.volumeMounts ?? []) assert.ok(template.spec.volumes.some((volume) => volume.name === name) || (role === 'registry' && name === 'data'), `${role}: ${name}`);
    }
  }
  for (const { metadata: { name }, spec: { selector, ports } } of ofKind('Service')) {
    const [role, set] = [...pods].find(([, { spec: { template } }]) => covers(selector, template)) ?? [];
    for (const { targetPort } of ports) assert.ok(set?.spec.template.spec.containers[0]?.ports?.some((port) => port.name === targetPort), `${name}: ${role ?? ''} ${targetPort}`);
  }
  // Each pod that lets devices in has an address of its own, that of its name.
  const ingest = pods.get('ingest');
  const own = ofKind('Service').map(({ spec: { selector } }) => selector['statefulset.kubernetes.io/pod-name']).filter((name) => name !== undefined);
  assert.deepEqual(own, Array.from({ length: ingest?.spec.replicas ?? 0 }, (_, index) => `${ingest?.metadata.name ?? ''}-${index}`));
  for (const role of ['ingest', 'processors', 'sinks', 'query']) assert.ok(ofKind('PodDisruptionBudget').some(({ spec: { selector } }) => covers(selector.matchLabels, pods.get(role)?.spec.template as Pod)), role);
  const reached = (port: string): unknown[] => ofKind('NetworkPolicy').flatMap(({ spec: { ingress } }) => (ingress as Array<{ from?: unknown; ports: Array<{ port: string }> }>).filter(({ ports }) => ports.some((each) => each.port === port)).map(({ from }) => from ?? 'anyone'));
  assert.deepEqual(reached('line'), [[{ podSelector: { matchLabels: { 'app.kubernetes.io/name': 'spamer' } } }]]);
  assert.deepEqual(reached('devices'), ['anyone']);
  for (const [role, { spec: { template } }] of pods) assert.ok(ofKind('NetworkPolicy').some(({ spec: { podSelector } }) => covers(podSelector.matchLabels, template)), role);
});

test('every image is pinned by version', () => {
  const images = [
    ...services.flatMap(([, { image }]) => (image === undefined ? [] : [image])),
    ...[...text('Dockerfile').matchAll(/^FROM (\S+)/gm)].map(([, image = '']) => image),
    ...[...text(manifest).matchAll(/image: (\S+)/g)].map(([, image = '']) => image),
  ];
  assert.ok(images.length >= 14, images.join());
  for (const image of images) assert.match(image, /^[\w./-]+:v?\d+\.\d+(?:\.\d+){0,2}(?:-[a-z-]+)?$/, image);
  const version = (JSON.parse(text('package.json')) as { version: string }).version;
  for (const image of images.filter((each) => /(?:^|\/)spamer:/.test(each))) assert.ok(image.endsWith(`:${version}`), image);
});

test('no secret stands in a file: those of the program come from files that init makes, and are kept out of repository and image', () => {
  const names = new Set(settingNames());
  const secrets = [...names].filter((name) => names.has(`${name}_file`));
  assert.ok(secrets.includes('passphrase') && secrets.includes('registry_url'), secrets.join());
  for (const file of [...composeFiles, manifest, 'Dockerfile']) {
    for (const secret of secrets) assert.ok(!new RegExp(`SPAMER_${secret.toUpperCase()}\\b(?!_FILE)`).test(text(file)), `${file}: ${secret}`);
  }
  for (const [name, { environment = {}, command = [] }] of services) {
    for (const [variable, value] of Object.entries(environment)) {
      if (/PASS|SECRET|TOKEN|KEY/i.test(variable)) assert.match(value, /^\/run\/secrets\/\w+$/, `${name}: ${variable}`);
      assert.doesNotMatch(value, /:\/\/[^/\s]*:[^/\s]*@/, `${name}: ${variable}`);
    }
    assert.ok(!command.some((word) => /password=|passwd|secret/i.test(word)), name);
  }
  for (const ignored of ['.gitignore', '.dockerignore']) assert.match(text(ignored), /^\/?secrets\/?$/m, ignored);
  for (const { file } of [...Object.values(compose.secrets), ...Object.values(composeOf('compose.tls.yaml').secrets)]) assert.match(file, /^\.\/secrets\/[\w.]+$/);
  for (const [name, { secrets: used = [] }] of services) for (const secret of used) assert.ok(secret in compose.secrets, `${name}: ${secret}`);
});

test('every setting that is given to the program is one that it knows', () => {
  // SPAMER_URL is read by commands.
  const known = new Set(['SPAMER_URL', ...settingNames().map((name) => `SPAMER_${name.toUpperCase()}`)]);
  for (const file of [...composeFiles, manifest, 'Dockerfile', 'deploy/healthy.mjs']) {
    const used = [...text(file).matchAll(/SPAMER_[A-Z_]+/g)].map(([name]) => name);
    assert.ok(used.length > 0, file);
    for (const name of used) assert.ok(known.has(name), `${file}: ${name}`);
  }
});

test('each service has what its role needs, and no secret that it does not', (t) => {
  const { dir, remove } = temporaryFolder('containers-settings');
  t.after(remove);
  const tls = composeOf('compose.tls.yaml');
  for (const name of ours) {
    const { environment = {}, secrets = [], volumes = [] } = compose.services[name] ?? {};
    const role = processes.get(name);
    assert.deepEqual([...secrets].sort(), secretsOf[role ?? name], name);
    const used = Object.values(environment).flatMap((value) => /^\/run\/secrets\/(\w+)$/.exec(value)?.[1] ?? []);
    assert.deepEqual([...used].sort(), [...secrets].sort(), name);
    assert.deepEqual(volumes, name === 'registry' ? ['spamer:/data'] : [], name);
    // Together they contradict nothing, with one broker and with three.
    const config = configOf(environment, dir);
    assert.deepEqual([config.roles, config.kafka_min_in_sync_replicas, config.log_shares], [role === undefined ? undefined : [role], 1, 1], name);
    const three = { SPAMER_KAFKA_REPLICATION_FACTOR: '3', SPAMER_KAFKA_MIN_IN_SYNC_REPLICAS: '2', SPAMER_DANGEROUSLY_ACK_FROM_ONE_REPLICA: 'false', SPAMER_LOG_SHARES: '4' };
    assert.equal(configOf(environment, dir, three).log_shares, 4, name);
    // With a certificate the same, for those that are published, and for no other.
    const opened = tls.services[name];
    assert.deepEqual(opened?.secrets ?? [], role === 'ingest' || role === 'query' ? ['tls_cert', 'tls_key'] : [], name);
    const safe = configOf(environment, dir, opened?.environment);
    if (role === 'ingest') assert.equal(new URL(safe.ingest_public_url ?? '').port, /^\d+/.exec(opened?.ports?.[0] ?? '')?.[0], name);
    if (role === 'query') assert.ok(safe.http_tls_cert_file !== undefined, name);
  }
  // Where devices are sent is what is published there.
  for (const name of ['ingest', 'ingest-2']) {
    const { environment = {}, ports = [] } = compose.services[name] ?? {};
    assert.equal(environment['SPAMER_INGEST_PUBLIC_URL'], `ws://${ports[0]?.replace(/:9090$/, '') ?? ''}/v1/stream`, name);
  }
  assert.deepEqual(processes, new Map(services.flatMap(([name, { environment }]) => (environment?.['SPAMER_ROLES'] === undefined ? [] : [[name, environment['SPAMER_ROLES']]]))));
  for (const name of processes.keys()) assert.ok(parseInt(String(compose.services[name]?.['stop_grace_period']), 10) > 10, name);
});

test('each pod has what its role needs, and no secret that it does not', (t) => {
  const { dir, remove } = temporaryFolder('containers-pods');
  t.after(remove);
  const environmentOf = ({ env }: Container): Record<string, string> => Object.fromEntries(env.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value]])));
  for (const [role, { spec: { template: { spec } } }] of pods) {
    const [container] = spec.containers;
    assert.ok(container);
    const environment = environmentOf(container);
    assert.deepEqual(configOf(environment, dir).roles, [role]);
    const mounted = spec.volumes.find(({ name }) => name === 'secrets')?.secret?.items?.map(({ key, path }) => (key === path ? key : `${key} as ${path}`)) ?? [];
    assert.deepEqual([...mounted].sort(), [...(secretsOf[role] ?? []), 'kafka_password'].sort(), role);
    for (const each of [container, ...(spec.initContainers ?? [])]) {
      for (const value of Object.values(environmentOf(each))) {
        const file = /^\/run\/secrets\/spamer\/(\w+)$/.exec(value)?.[1];
        if (file !== undefined) assert.ok(mounted.includes(file), `${role}: ${file}`);
      }
    }
    assert.equal(spec.volumes.find(({ name }) => name === 'tls')?.secret?.secretName, role === 'ingest' || role === 'query' ? 'spamer-tls' : 'spamer-inside-tls', role);
  }
  const [topics] = pods.get('registry')?.spec.template.spec.initContainers ?? [];
  assert.ok(topics);
  const shares = [topics, ...[...pods.values()].flatMap(({ spec: { template } }) => template.spec.containers)].map((each) => configOf(environmentOf(each), dir).log_shares);
  assert.deepEqual(new Set(shares), new Set([4]), 'all say the same number of shares');
  assert.match(pods.get('ingest')?.spec.template.spec.containers[0]?.env.find(({ name }) => name === 'SPAMER_INGEST_PUBLIC_URL')?.value ?? '', /^wss:\/\/\$\(POD_NAME\)\./);
});

test('a container of ours can write to its volume only, and none gains rights; what is published is published to this host only', () => {
  for (const name of ours) {
    const service = compose.services[name] ?? {};
    assert.equal(service['read_only'], true, name);
    assert.match(withDefaults(String(service['user'])), /^[1-9]\d*:[1-9]\d*$/, name);
    assert.equal(service['cap_add'], undefined, name);
  }
  assert.match(text('Dockerfile'), /^USER [1-9]\d*:[1-9]\d*$/m);
  for (const [name, service] of services) {
    assert.deepEqual(service['cap_drop'], ['ALL'], name);
    assert.deepEqual(service['security_opt'], ['no-new-privileges:true'], name);
    for (const bound of ['mem_limit', 'pids_limit']) assert.ok(service[bound] !== undefined, `${name}: ${bound}`);
    assert.equal(service['privileged'], undefined, name);
    for (const port of service.ports ?? []) assert.match(port, /^127\.0\.0\.1:\d+:\d+$/, name);
    for (const volume of service.volumes ?? []) assert.ok(!volume.startsWith('.') || volume.endsWith(':ro'), `${name}: ${volume}`);
    const outside = (service.networks ?? []).filter((network) => compose.networks[network]?.internal !== true);
    assert.equal(outside.length > 0, (service.ports ?? []).length > 0, `${name}: only who publishes a port reaches out`);
  }
});

test('[DURABLE] no broker may acknowledge from memory: no write caching, no bypassed fsync, no mode for developers', () => {
  const brokers = services.filter(([, { image }]) => image?.includes('/redpanda:') === true);
  assert.deepEqual(brokers.map(([name]) => name), ['redpanda-0', 'redpanda-1', 'redpanda-2']);
  const properties = parse(text('deploy/redpanda/bootstrap.yaml')) as Record<string, unknown>;
  assert.deepEqual(properties, { write_caching_default: 'disabled', auto_create_topics_enabled: false });
  const alike = brokers.map(([name, { command = [], volumes = [] }]) => {
    assert.ok(command.includes('--unsafe-bypass-fsync=false') && command.includes('--set=redpanda.developer_mode=false'), name);
    assert.ok(!command.some((word) => word.startsWith('--mode')), name);
    assert.ok(volumes.includes('./deploy/redpanda/bootstrap.yaml:/etc/redpanda/.bootstrap.yaml:ro'), name);
    // Their own names and numbers aside, and less the seeds, which are the same.
    return command.filter((word) => !word.startsWith('--seeds')).join(' ').replaceAll(name, 'NAME').replace(`--node-id=${name.slice(-1)}`, '--node-id=N');
  });
  assert.equal(new Set(alike).size, 1, alike.join('\n'));
  const { command = [] } = compose.services['postgresql'] ?? {};
  for (const kept of ['fsync=on', 'synchronous_commit=on', 'full_page_writes=on']) assert.ok(command.includes(kept), kept);
});

/** Every name that /metrics has, those of the histogram included. */
async function metricNames(): Promise<Set<string>> {
  const snapshot = {
    frames: 1, samples: 1, bytes: 1, acks: 1, connections: 1, halfOpen: 1, halfOpenRefused: 1, handshakesRefused: 1, nacksByCode: { disk_full: 1 }, rejectsByReason: { range: 1 },
    setAside: { record: 1 }, up: { log: true }, emergencies: { total: 1, unreviewed: 1 }, lag: [{ stage: 'record', topic: 'vitals.raw', partition: 0, records: 1 }],
    freshnessMs: 1, flush: { buckets: [{ le: 1, count: 1 }], sumS: 1, count: 1 },
  };
  const lines = (await new Metrics({ read: async () => snapshot }).text()).split('\n');
  return new Set(lines.flatMap((line) => /^(\w+)(?:\{|\s)/.exec(line)?.[1] ?? []));
}

test('dashboard and alerts ask for metrics that the program has, by labels that they have', async () => {
  const exported = await metricNames();
  /** Counters, and gauges that are numbers of sockets: what is added up over processes. */
  const counted = new Set([...exported].filter((name) => /_(total|bucket)$/.test(name) || /connections$/.test(name)));
  const labels = new Set(['stage', 'topic', 'partition', 'part', 'code', 'reason', 'le', 'job', 'role', 'instance']);
  const { panels } = JSON.parse(text('deploy/grafana/dashboards/spamer.json')) as { panels: Array<{ title: string; targets: Array<{ expr: string; legendFormat: string }>; datasource: { uid: string } }> };
  const { groups } = parse(text('deploy/prometheus/alerts.yml')) as { groups: Array<{ rules: Array<{ alert: string; expr: string; annotations: { summary: string } }> }> };
  const asked = [...panels.flatMap(({ targets }) => targets.map(({ expr, legendFormat }) => [expr, legendFormat] as const)), ...groups.flatMap(({ rules }) => rules.map(({ expr, annotations }) => [expr, annotations.summary] as const))];
  assert.ok(asked.length >= 20);
  const used = new Set(asked.flatMap(([expr]) => [...expr.matchAll(/spamer_\w+/g)].map(([name]) => name)));
  for (const name of used) assert.ok(exported.has(name), name);
  for (const name of exported) if (!/_(sum|count)$/.test(name)) assert.ok(used.has(name), `${name} is watched nowhere`);
  for (const [expr, said] of asked) {
    for (const [, list = ''] of expr.matchAll(/by \(([^)]*)\)/g)) for (const label of list.split(', ')) assert.ok(labels.has(label), expr);
    for (const [, label = ''] of said.matchAll(/\{\{ ?(?:\$labels\.)?(\w+) ?\}\}/g)) assert.ok(labels.has(label), said);
  }
  const datasource = parse(text('deploy/grafana/provisioning/datasources/prometheus.yml')) as { datasources: Array<{ uid: string; url: string }> };
  assert.ok(panels.every(({ datasource: { uid } }) => uid === datasource.datasources[0]?.uid));
  const prometheus = parse(text('deploy/prometheus/prometheus.yml')) as { rule_files: string[]; scrape_configs: Array<{ static_configs?: Array<{ targets: string[] }>; dns_sd_configs?: Array<{ names: string[] }> }> };
  assert.deepEqual(prometheus.rule_files, ['alerts.yml']);
  // With compose.tls.yaml the same but for what `query` answers by.
  const [plain, tls] = ['prometheus.yml', 'prometheus.tls.yml'].map((file) => parse(text(`deploy/prometheus/${file}`)) as { scrape_configs: Array<{ tls_config?: unknown; relabel_configs?: Array<{ source_labels: string[]; regex: string; target_label: string; replacement: string }> }> });
  const [scraped, ...others] = tls?.scrape_configs ?? [];
  assert.deepEqual(scraped?.relabel_configs?.pop(), { source_labels: ['role'], regex: 'query', target_label: '__scheme__', replacement: 'https' });
  delete scraped.tls_config;
  assert.deepEqual({ ...tls, scrape_configs: [scraped, ...others] }, plain);
  const commands = composeFiles.map((file) => composeOf(file).services['prometheus']?.command ?? []);
  assert.deepEqual(commands.map(([config]) => config), ['--config.file=/etc/prometheus/prometheus.yml', '--config.file=/etc/prometheus/prometheus.tls.yml']);
  assert.deepEqual(commands[1]?.slice(1), commands[0]?.slice(1));
  const hosts = prometheus.scrape_configs.flatMap(({ static_configs: fixed = [], dns_sd_configs: named = [] }) => [...fixed.flatMap(({ targets }) => targets.map((target) => target.split(':')[0] ?? '')), ...named.flatMap(({ names }) => names)]);
  const near = new Set(compose.services['prometheus']?.networks);
  // By one network: by two it could be found twice, and counted twice.
  for (const host of hosts) assert.equal(compose.services[host]?.networks?.filter((network) => near.has(network)).length, 1, host);
  for (const name of processes.keys()) assert.ok(hosts.includes(name), name);
  // What registry and query tell is of all processes, and must not be added to what those tell.
  const added = [...counted].filter((name) => !name.startsWith('spamer_break_glass'));
  assert.ok(added.length >= 10, added.join());
  for (const [expr] of asked) for (const name of added) assert.ok(!new RegExp(`${name}(?!\\w)`).test(expr) || new RegExp(`${name}\\{role!~"registry\\|query"`).test(expr), expr);
});

test('what the files mount from the repository is there, and scripts can be run', () => {
  for (const [name, { volumes = [] }] of services) {
    for (const volume of volumes.filter((each) => each.startsWith('./'))) assert.ok(statSync(join(root, volume.split(':')[0] ?? '')).size > 0, `${name}: ${volume}`);
  }
  for (const script of ['deploy/clickhouse/start.sh', 'deploy/postgresql/spamer.sh']) assert.ok((statSync(join(root, script)).mode & 0o111) !== 0, script);
  const copied = [...text('Dockerfile').matchAll(/^COPY (?:--from=build )?(.*)$/gm)].flatMap(([, line = '']) => line.split(' ').slice(0, -1)).map((path) => path.replace('/build/', '').replace('/kafka/', ''));
  const there = new Set([...readdirSync(root), 'dist', 'node_modules']);
  for (const path of copied) assert.ok(path === '.' || there.has(path.split('/')[0] ?? ''), path);
});
