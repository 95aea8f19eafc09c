/**
 * The closed set of errors that this program names to the outside. Each code is stable (DESIGN §9), has a verdict
 * (is trying again useful?) and an HTTP status. Foreign errors are translated to one of these once, at the edge where they arise.
 * Messages say where, never what: a path, an index, a position; never a vital value, a name or an id of a person.
 */
export interface Verdict {
  /** Whether the same request may succeed later, unchanged. */
  readonly retry: boolean;
  readonly status: number;
  /** What to do, for a person; one sentence. */
  readonly remedy: string;
}

export const verdicts = {
  // Configuration and start
  config_invalid: { retry: false, status: 500, remedy: 'Correct the settings named above; `spamer doctor` checks them.' },
  port_taken: { retry: false, status: 500, remedy: 'Stop the program that holds the port, or choose another; 0 means any free one.' },
  data_locked: { retry: false, status: 500, remedy: 'Another spamer process uses this data folder; stop it or set SPAMER_DATA_DIR.' },
  data_newer: { retry: false, status: 500, remedy: 'This data folder was written by a newer version; run that version.' },
  data_damaged: { retry: false, status: 500, remedy: 'Restore the named file from a backup.' },
  passphrase_wrong: { retry: false, status: 500, remedy: 'Give the passphrase that the keystore was created with.' },
  kms_refused: { retry: false, status: 502, remedy: 'Check the token, the policy and the key name that the key service was given.' },
  part_missing: { retry: false, status: 500, remedy: 'Install the optional part named above.' },
  unreachable: { retry: true, status: 503, remedy: 'Check that the address is right and that the other side is running.' },
  replicas_missing: { retry: true, status: 503, remedy: 'Start the brokers that are away, and wait until their copies have caught up; nothing acknowledged is lost.' },
  // Admission of devices and frames (also sent as Nack codes)
  frame_malformed: { retry: false, status: 400, remedy: 'The bytes are not a message of the named schema.' },
  frame_too_large: { retry: false, status: 413, remedy: 'Send smaller frames; Hello names the limit.' },
  schema_unknown: { retry: false, status: 400, remedy: 'Use a schema id from docs/protocol.md.' },
  schema_unexpected: { retry: false, status: 400, remedy: 'A device sends Frame, Status and CommandResult only.' },
  seq_gap: { retry: true, status: 409, remedy: 'Resend from the highest acknowledged seq + 1.' },
  epoch_old: { retry: false, status: 409, remedy: 'Use the epoch from Hello, or a higher one with seq 1.' },
  window_exceeded: { retry: true, status: 429, remedy: 'Keep at most `window` frames unacknowledged.' },
  rate_exceeded: { retry: true, status: 429, remedy: 'Send more slowly.' },
  not_bound: { retry: false, status: 409, remedy: 'Bind the device to a patient.' },
  clock_skewed: { retry: false, status: 400, remedy: 'Set the device clock; Hello carries the server time.' },
  disk_full: { retry: true, status: 507, remedy: 'Free disk space or raise log_bytes_max; nothing acknowledged is lost.' },
  overloaded: { retry: true, status: 503, remedy: 'Try again later; the device keeps its data until it is acknowledged.' },
  replaced: { retry: false, status: 409, remedy: 'A newer connection of this device took over.' },
  stopping: { retry: true, status: 503, remedy: 'The server is stopping; reconnect.' },
  idle: { retry: true, status: 408, remedy: 'Answer pings and read what is sent.' },
  // Tokens and rights: all refusals look the same from outside
  unauthenticated: { retry: false, status: 401, remedy: 'Present a valid token.' },
  forbidden: { retry: false, status: 403, remedy: 'Ask an administrator for the right.' },
  too_many_attempts: { retry: true, status: 429, remedy: 'Wait; every failed attempt makes the next wait longer, up to five minutes.' },
  password_change_needed: { retry: false, status: 403, remedy: 'Sign in with this password and a new one.' },
  issuer_unreachable: { retry: true, status: 503, remedy: 'Try again in a minute; who has a password here signs in with it meanwhile.' },
  kept_elsewhere: { retry: false, status: 409, remedy: 'Change it where the account is kept: at the organisation that this user signs in with.' },
  audit_failed: { retry: true, status: 503, remedy: 'The audit could not be written, so nothing was done; see the log for its reason.' },
  // Requests
  bad_request: { retry: false, status: 400, remedy: 'Correct the request as the detail says.' },
  not_found: { retry: false, status: 404, remedy: 'Check the path, the ids and the time that were asked for.' },
  conflict: { retry: false, status: 409, remedy: 'It exists already, or has changed meanwhile.' },
  key_reused: { retry: false, status: 422, remedy: 'Use a new Idempotency-Key for another request.' },
  too_large: { retry: false, status: 413, remedy: 'Ask for less at a time.' },
  recipient_key_unfit: { retry: false, status: 400, remedy: 'Give a public JWK for encryption: EC with curve P-256, or RSA of 2048 to 8192 bits.' },
  erasure_blocked: { retry: false, status: 409, remedy: 'Release the hold, or wait until the time that the message names.' },
  // Stored data
  certificate_invalid: { retry: false, status: 400, remedy: 'Check that the certificate is whole and that the key is the one of its keystore.' },
  decryption_failed: { retry: false, status: 500, remedy: 'The sealed bytes do not open under their key; they were set aside.' },
  block_unreadable: { retry: false, status: 500, remedy: 'The record was set aside; see dead letters.' },
  key_missing: { retry: false, status: 410, remedy: 'The key is gone; if the patient was erased, that is intended.' },
  offset_gone: { retry: false, status: 410, remedy: 'Retention has removed this offset.' },
  store_failed: { retry: true, status: 503, remedy: 'The store refused; see the log for its reason.' },
  taken_over: { retry: false, status: 503, remedy: 'Another process stores now; start this one again if it is to take over.' },
  log_failed: { retry: true, status: 503, remedy: 'The log refused; see the log for its reason.' },
  internal: { retry: false, status: 500, remedy: 'Please report this with the log line.' },
} as const satisfies Record<string, Verdict>;

export type ErrorCode = keyof typeof verdicts;

/** `where` names a place (path, index, partition/offset, setting), never a value of a person. */
export class SpamerError extends Error {
  override readonly name = 'SpamerError';
  readonly code: ErrorCode;
  readonly where: string | undefined;

  constructor(code: ErrorCode, message: string, options: { where?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.where = options.where;
  }

  get retry(): boolean {
    return verdicts[this.code].retry;
  }

  get status(): number {
    return verdicts[this.code].status;
  }

  get remedy(): string {
    return verdicts[this.code].remedy;
  }
}

/** Wraps what is not ours; ours passes unchanged. */
export function toSpamerError(cause: unknown, code: ErrorCode, message: string, where?: string): SpamerError {
  if (cause instanceof SpamerError) return cause;
  return new SpamerError(code, message, where === undefined ? { cause } : { cause, where });
}

/** The form in which an error crosses a thread: structured clone drops the class. */
export interface ErrorShape {
  readonly code: ErrorCode;
  readonly message: string;
  readonly where?: string;
}

export function errorShape(error: unknown): ErrorShape {
  if (error instanceof SpamerError) {
    return error.where === undefined ? { code: error.code, message: error.message } : { code: error.code, message: error.message, where: error.where };
  }
  // A foreign message may quote its input, so only its class crosses.
  return { code: 'internal', message: error instanceof Error ? error.constructor.name : 'unknown failure' };
}

export function fromErrorShape(shape: ErrorShape): SpamerError {
  return new SpamerError(shape.code, shape.message, shape.where === undefined ? {} : { where: shape.where });
}
