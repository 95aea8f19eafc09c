import { Counter, Gauge, Registry } from 'prom-client';
import type { MetricsSnapshot, MetricsSource } from './ports.js';

/**
 * Prometheus text. Values are the pipeline's own counters, copied at the scrape: nothing is counted twice.
 * Labels are stages, topics, codes and reasons; never a device, a patient or a study [SEALED].
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #source: MetricsSource;
  readonly #frames = this.#counter('spamer_frames_total', 'Frames accepted.');
  readonly #samples = this.#counter('spamer_samples_total', 'Samples and readings accepted.');
  readonly #bytes = this.#counter('spamer_received_bytes_total', 'Bytes of accepted frames.');
  readonly #acks = this.#counter('spamer_acks_total', 'Acks sent; each after its flush.');
  readonly #nacks = this.#counter('spamer_nacks_total', 'Frames not taken, by code.', ['code']);
  readonly #rejects = this.#counter('spamer_rejected_samples_total', 'Samples that failed validation, by reason.', ['reason']);
  readonly #setAside = this.#counter('spamer_set_aside_records_total', 'Stored records that could not be read and were passed over, by stage.', ['stage']);
  readonly #handshakesRefused = this.#counter('spamer_handshakes_refused_total', 'Devices not let in, for whatever reason.');
  readonly #halfOpenRefused = this.#counter('spamer_half_open_refused_total', 'Sockets closed at once, since too many were half open.');
  readonly #connections = this.#gauge('spamer_connections', 'Devices connected.');
  readonly #halfOpen = this.#gauge('spamer_half_open_connections', "Sockets on the device port that are not yet a device's.");
  readonly #up = this.#gauge('spamer_part_up', 'Whether a part of the program answered; 0: it hangs or failed, and its other values are its last.', ['part']);
  readonly #emergencies = this.#counter('spamer_break_glass_total', 'Emergency accesses.');
  readonly #unreviewed = this.#gauge('spamer_break_glass_unreviewed', 'Emergency accesses that nobody has reviewed yet; alert above 0.');
  readonly #lag = this.#gauge('spamer_lag_records', 'Records that a stage or sink has still to read.', ['stage', 'topic', 'partition']);
  readonly #freshness = this.#gauge('spamer_freshness_seconds', 'From receipt to queryable, of what was stored last.');

  constructor(source: MetricsSource) {
    this.#source = source;
  }

  readonly contentType = this.#registry.contentType;

  async text(): Promise<string> {
    const snapshot = await this.#source.read();
    this.#copy(snapshot);
    return `${await this.#registry.metrics()}\n${flushText(snapshot.flush)}`;
  }

  #copy(snapshot: MetricsSnapshot): void {
    const { frames, samples, bytes, acks, handshakesRefused, halfOpenRefused, emergencies } = snapshot;
    for (const [counter, value] of [
      [this.#frames, frames], [this.#samples, samples], [this.#bytes, bytes], [this.#acks, acks], [this.#handshakesRefused, handshakesRefused], [this.#halfOpenRefused, halfOpenRefused],
      [this.#emergencies, emergencies.total],
    ] as const) {
      counter.reset();
      counter.inc(value);
    }
    this.#copyLabelled(this.#nacks, 'code', snapshot.nacksByCode);
    this.#copyLabelled(this.#rejects, 'reason', snapshot.rejectsByReason);
    this.#copyLabelled(this.#setAside, 'stage', snapshot.setAside);
    this.#unreviewed.set(snapshot.emergencies.unreviewed);
    this.#connections.set(snapshot.connections);
    this.#halfOpen.set(snapshot.halfOpen);
    this.#freshness.set(snapshot.freshnessMs === null ? NaN : snapshot.freshnessMs / 1000);
    this.#up.reset();
    for (const [part, up] of Object.entries(snapshot.up)) this.#up.set({ part }, up ? 1 : 0);
    this.#lag.reset();
    for (const { stage, topic, partition, records } of snapshot.lag) this.#lag.set({ stage, topic, partition }, records);
  }

  #copyLabelled(counter: Counter, label: string, values: Readonly<Record<string, number>>): void {
    counter.reset();
    for (const [name, value] of Object.entries(values)) counter.inc({ [label]: name }, value);
  }

  #counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name, help, labelNames, registers: [this.#registry] });
  }

  #gauge(name: string, help: string, labelNames: string[] = []): Gauge {
    return new Gauge({ name, help, labelNames, registers: [this.#registry] });
  }
}

/** prom-client's histograms take observations, not counts; ours are counted where the flush is. */
function flushText(flush: MetricsSnapshot['flush']): string {
  const name = 'spamer_flush_seconds';
  const buckets = flush.buckets.map(({ le, count }) => `${name}_bucket{le="${le}"} ${count}`);
  return [`# HELP ${name} Time of one flush of the log.`, `# TYPE ${name} histogram`, ...buckets, `${name}_bucket{le="+Inf"} ${flush.count}`, `${name}_sum ${flush.sumS}`, `${name}_count ${flush.count}`, ''].join('\n');
}
