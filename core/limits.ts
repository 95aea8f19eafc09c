/**
 * Every bound of the program, in one place, units last. Those that an operator may move are defaults of `core/config.ts`.
 * The relations that other code relies on are asserted at the end, when this module loads.
 */
export const limits = {
  /** One frame's Avro body. */
  frameBytesMax: 64 * 1024,
  /** One WebSocket message: header and one or more frames. */
  messageBytesMax: 256 * 1024,
  /** Channels (waveforms + numerics) and events in one frame. */
  frameChannelsMax: 64,
  frameNumericsMax: 1024,
  frameEventsMax: 256,
  /** Samples of one waveform in one frame. */
  waveformSamplesMax: 20_000,
  /** Frames that one device may have unacknowledged. */
  windowFrames: 16_384,
  /** Frame bytes that one device may have unacknowledged: the window's other bound. */
  windowBytes: 1024 * 1024,
  /** The least that Hello offers of it, however many devices are connected. */
  windowBytesMin: 64 * 1024,
  /** Frame bytes of all devices between receipt and flush; above it frames are refused as `overloaded`, to be sent again. */
  pendingBytesMax: 64 * 1024 * 1024,
  /** Plain bytes sealed into one block. */
  blockBytesMax: 1024 * 1024,
  /** Bytes that may wait in one device's socket for a slow reader. */
  socketBackpressureBytesMax: 64 * 1024,
  connectionsMax: 50_000,
  /** A connection that sends nothing, not even a pong, for so long is closed. */
  idleTimeoutS: 60,
  /** Handshakes whose token is being checked, and those that wait for their turn: as many as are let in before a device gives its handshake up. */
  handshakesMax: 512,
  handshakesWaitingMax: 8192,
  /** Sockets that are not yet a device's: silent, or within their request or handshake. */
  halfOpenMax: 16_384,
  /** Open files that device sockets leave to the rest of the program. */
  descriptorsReserved: 1024,
  /** Lifetime of a device token; also how long its id is remembered. */
  deviceTokenAgeMaxS: 300,
  clockSkewMaxS: 30,
  /** One read from a topic. */
  readBytesMax: 8 * 1024 * 1024,
  readRecordsMax: 10_000,
  /** A record that a log stores: a block, a chunk, a run. */
  recordBytesMax: 4 * 1024 * 1024,
  /** Bytes of one commit of a stage. */
  commitBytesMax: 32 * 1024 * 1024,
  /** Data keys that one thread keeps opened. */
  dataKeysCachedMax: 50_000,
  /** Idempotency keys that are kept at once; each lasts a day. */
  idempotencyKeysMax: 100_000,
  /** Answers of the registry that are kept until anything in it is written, of each kind. */
  registryAnswersCachedMax: 50_000,
  /** Rows of the registry that one statement reads or counts for those who ask at the same time. */
  registryRowsAtOnce: 1000,
  /** Sealings under one session key; far below the 2^32 of a random 96-bit nonce, and counted. */
  sealsPerSessionMax: 2 ** 31,
  /** Encryptions under one data key before it is replaced; a sixteenth of the 2^32 that random nonces would allow, though each session under it has a key of its own. */
  sealsPerDataKeyMax: 2 ** 28,
  /** Counted at once for a thread that seals, before it does: what a restart may waste of the above. */
  sealsReserved: 2 ** 16,
  /** Plain bytes of a PMR chunk before compression. */
  chunkBytesMax: 1024 * 1024,
  /** Samples of one anonymized run; a multiple of a thousand, so that pieces begin at whole microseconds. */
  runSamplesMax: 1000,
  /** Body of a request, and of one to a route that needs no token: JSON of many levels takes V8 0.2 s a MB to read. */
  bodyBytesMax: 1024 * 1024,
  openBodyBytesMax: 16 * 1024,
  /** A refusal leaves at a whole multiple of this: longer than what is looked up before it takes. */
  refusalGridMs: 25,
  /** Stored frames, decompressed, and chunks in one part of a portable record: as JSON at most some twelve times as much, all of it in memory at once. */
  portableBytesMax: 2 * 1024 * 1024,
  portableChunksMax: 256,
  /** Rows of one answer page and of one exported batch. */
  pageRowsMax: 10_000,
  /** Names of series that a store on a server keeps, so as not to write them again. */
  seriesNamesKeptMax: 500_000,
  /** Calls in flight between two threads. */
  callsInFlightMax: 10_000,
  /** One message between two processes, and what may wait for one that does not read. */
  lineMessageBytesMax: 64 * 1024 * 1024,
  lineWaitingBytesMax: 256 * 1024 * 1024,
  lineConnectionsMax: 1024,
  /** A process that says nothing for so long is cut off. */
  lineSilentMs: 5000,
  /** How long a call waits for the line to come back before it fails. */
  lineWaitMs: 5000,
  /** A process that can't reach the one with the keys for so long takes no frames any more: it would not hear of a revocation. */
  lineLostMs: 10_000,
  /** How long the others have to act on a change before they are cut off; a change then reaches every process, or that one takes no frames soon. */
  lineChangeMs: 2000,
  /** A process that went without a word may come back within so long and find its shares. */
  lineAwayMs: 2000,
  /** How long a process may take to give a share back, or to begin with one. */
  lineShareMs: 20_000,
  /** After a start, how long those who worked on before may take to say what they have. */
  lineSettleMs: 3000,
  /** After so long without an answer a writer's thread counts as dead, and any other thread: the program then ends. */
  commitStalledMs: 60_000,
  threadSilentMs: 120_000,
  /** One answer of a schema registry, one request to it, and the first answer of one that is just starting. */
  schemaRegistryAnswerBytesMax: 1024 * 1024,
  schemaRegistryTimeoutMs: 10_000,
  schemaRegistryReadyMs: 5000,
  /** How long metrics and readiness wait for a part that does not answer. */
  reportWaitMs: 2000,
  /** Lifetime of a signed-in user's access token, of the refresh token that follows it, and of the whole session. */
  accessTokenS: 15 * 60,
  refreshTokenS: 8 * 3600,
  sessionS: 24 * 3600,
  sessionsPerUserMax: 32,
  refreshesPerSessionMax: 1000,
  oneTimePasswordS: 7 * 86_400,
  /** argon2id at once: each takes 64 MiB and a thread of the pool of four that files and compression share. */
  passwordHashesAtOnce: 2,
  signInsWaitingPerSource: 8,
  signInsWaitingMax: 512,
  /** Attempts for one account from one source before the first wait, and the longest wait. */
  signInsFree: 5,
  signInWaitMaxMs: 300_000,
  attemptsKeptMax: 50_000,
  /** Sign-ins that were begun at an OpenID issuer: how long one may take, and how many are remembered, of one source and of all. A hospital may be one source. */
  issuerSignInS: 600,
  issuerSignInsPerSourceMax: 1000,
  issuerSignInsMax: 10_000,
  /** What comes back from there: so many at once, and each place is held for so long, which is at most 20 questions a second to the issuer. */
  issuerExchangesAtOnce: 8,
  issuerExchangeMs: 400,
  /** An answer of the issuer, and how long it may take. */
  issuerAnswerBytesMax: 256 * 1024,
  issuerAnswerS: 5,
  /** How long its metadata is kept, and how long it is left alone after it failed. */
  issuerMetadataS: 3600,
  issuerRestS: 5,
  /** One-time codes by which devices enrol: their longest life, and how many may be open. */
  deviceCodeSMax: 86_400,
  deviceCodesOpenMax: 10_000,
  /** Longest life of the assertion by which a service account proves itself, and for how long beyond it one that was taken is remembered: a clock that is set back by less lets none in again. */
  serviceAssertionAgeMaxS: 300,
  serviceAssertionKeptS: 3600,
  /** Assertions remembered of one account, and access tokens of it that are good at once. */
  serviceAssertionsKeptMax: 4096,
  tokensPerServiceMax: 256,
  /** Assertions looked at at once, and waiting of one source. */
  assertionsAtOnce: 4,
  assertionsWaitingPerSource: 64,
  /** Entries of the audit that wait for their flush; above it nothing more is decided. */
  auditPendingMax: 16_384,
  /** Entries of one flush. */
  auditBatchMax: 1024,
  /** Pairs in the context of one entry, and characters of one text in it. */
  auditContextMax: 32,
  auditTextCharsMax: 4096,
  /** A checkpoint at least so often while there are new entries: half of what is promised. */
  auditCheckpointMs: 5000,
  /** Refusals of callers without a good token that are entries of their own, a second; more are summed up. */
  auditRefusalsPerS: 100,
  /** Pseudonyms of erased patients that are told to the stores at once. */
  tombstonesPageMax: 1000,
  /** An erasure that met something that may pass is tried again after so long. */
  erasureRetryMs: 60_000,
  /** Entries that one search looks at before it answers with a cursor. */
  auditSearchedMax: 50_000,
  /** A TLS handshake on the HTTP port. */
  tlsHandshakeMs: 10_000,
  /** Watchers of live waves. */
  liveWatchersMax: 64,
} as const;

const relations: ReadonlyArray<readonly [string, boolean]> = [
  ['a message holds at least one largest frame', limits.messageBytesMax >= limits.frameBytesMax + 5],
  ['runs are cut at whole microseconds', limits.runSamplesMax % 1000 === 0],
  ['a block holds at least one largest frame', limits.blockBytesMax >= limits.frameBytesMax],
  ['the least window holds a largest frame', limits.windowBytesMin >= limits.frameBytesMax],
  ['the window holds at least one largest message', limits.windowBytes >= limits.messageBytesMax],
  ['a record holds a largest block, sealed', limits.recordBytesMax >= limits.blockBytesMax + 64 * 1024],
  ['a record holds a largest chunk', limits.recordBytesMax >= limits.chunkBytesMax + limits.blockBytesMax],
  ['a part of a portable record holds a largest chunk', limits.portableBytesMax >= limits.chunkBytesMax + limits.blockBytesMax],
  ['a read returns at least one largest record', limits.readBytesMax >= limits.recordBytesMax],
  ['a commit holds what one read can become', limits.commitBytesMax >= 2 * limits.readBytesMax],
  ['an access token ends before its refresh token, and that before its session', limits.accessTokenS < limits.refreshTokenS && limits.refreshTokenS <= limits.sessionS],
  ['a service account that renews its token in time never comes to its bounds', limits.serviceAssertionsKeptMax > (4 * (limits.serviceAssertionAgeMaxS + limits.serviceAssertionKeptS)) / limits.accessTokenS],
  ['an issuer that answers at all has done so before a browser gives up', limits.issuerAnswerS * 3 < 30],
  ['no source fills what is remembered of sign-ins at the issuer', limits.issuerSignInsPerSourceMax * 8 <= limits.issuerSignInsMax],
  ['a data key is replaced long before random nonces could meet', limits.sealsPerDataKeyMax <= 2 ** 32 / 16],
  ['a key lasts for many starts of all threads', limits.sealsPerDataKeyMax >= 1000 * limits.sealsReserved],
  ['handshakes that wait are among the sockets that are not yet a device\'s', limits.handshakesMax + limits.handshakesWaitingMax < limits.halfOpenMax],
  ['what a reconnecting device needs is at hand for as many as may be connected', limits.dataKeysCachedMax >= limits.connectionsMax && limits.registryAnswersCachedMax >= limits.connectionsMax],
  ['all devices together may have more pending than one', limits.pendingBytesMax >= 16 * limits.windowBytes],
];

for (const [relation, holds] of relations) {
  if (!holds) throw new RangeError(`core/limits.ts: broken relation: ${relation}`);
}
