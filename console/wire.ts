/** The answers of the server that this page reads; the OpenAPI description is at /openapi.json. */
export interface Status {
  readonly time: string;
  readonly version: string;
  readonly demo: boolean;
  readonly frames: number;
  readonly samples: number;
  readonly bytes: number;
  readonly acks: number;
  readonly connections: number;
  readonly freshnessMs: number | null;
  readonly lag: ReadonlyArray<{ readonly stage: string; readonly topic: string; readonly records: number }>;
}

export interface LedgerTotals {
  readonly accepted: number;
  readonly stored: number;
  readonly rejected: number;
  readonly held: number;
  readonly erased: number;
  readonly inFlight: number;
  readonly rejectedByReason: Readonly<Record<string, number>>;
  readonly balanced: boolean;
}

export interface LedgerChannel extends LedgerTotals {
  readonly device: string;
  readonly code: number;
}

export interface Device {
  readonly device: string;
  readonly state: string;
  readonly patient: string | null;
  readonly connected: boolean;
  readonly lastFrame: string | null;
  readonly frames: number;
  readonly batteryPercent: number | null;
  readonly bufferedFrames: number | null;
  readonly droppedFrames: number | null;
}

export interface Patient {
  readonly patient: string;
  readonly label: string;
  readonly origin: 'synthetic' | 'recorded' | null;
  readonly devices: readonly string[];
}

export interface Vocabulary {
  readonly signals: ReadonlyArray<{ readonly code: number; readonly name: string; readonly label: string; readonly ucum: string; readonly kind: 'wave' | 'numeric' }>;
  readonly units: ReadonlyArray<{ readonly code: number; readonly ucum: string }>;
}

export interface LiveFrame {
  readonly device: string;
  readonly receivedAt: number;
  readonly waves: ReadonlyArray<{ readonly code: number; readonly unit: number; readonly t0: number; readonly periodNs: number; readonly scale: number; readonly offset: number; readonly samples: readonly number[] }>;
  readonly numerics: ReadonlyArray<{ readonly code: number; readonly unit: number; readonly time: number; readonly value: number }>;
  readonly events: ReadonlyArray<{ readonly kind: string; readonly code: number; readonly time: number; readonly durationUs: number; readonly priority: number }>;
}

/** Server-sent events over fetch, since EventSource can carry no token in a header. */
export async function* events(stream: ReadableStream<Uint8Array>): AsyncGenerator<{ readonly event: string; readonly data: string }> {
  const reader = stream.pipeThrough(new TextDecoderStream() as unknown as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n\n');
    rest = parts.pop() ?? '';
    for (const message of parts) {
      const event = /^event: (.*)$/m.exec(message)?.[1] ?? 'message';
      yield { event, data: /^data: (.*)$/m.exec(message)?.[1] ?? '' };
    }
  }
}
