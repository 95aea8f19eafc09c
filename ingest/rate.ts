/** Token buckets of one device: frames and bytes, each filled up to one second's worth. */
export class Rate {
  readonly #framesPerS: number;
  readonly #bytesPerS: number;
  #frames: number;
  #bytes: number;
  #filledMs: number;

  constructor(framesPerS: number, bytesPerS: number, nowMs: number) {
    this.#framesPerS = this.#frames = framesPerS;
    this.#bytesPerS = this.#bytes = bytesPerS;
    this.#filledMs = nowMs;
  }

  fill(nowMs: number): void {
    const seconds = (nowMs - this.#filledMs) / 1000;
    if (seconds <= 0) return;
    this.#frames = Math.min(this.#framesPerS, this.#frames + seconds * this.#framesPerS);
    this.#bytes = Math.min(this.#bytesPerS, this.#bytes + seconds * this.#bytesPerS);
    this.#filledMs = nowMs;
  }

  /** Bytes may go into debt by one frame, so that a frame larger than a second's worth passes at all. */
  get allows(): boolean {
    return this.#frames >= 1 && this.#bytes > 0;
  }

  spend(bytes: number): void {
    this.#frames -= 1;
    this.#bytes -= bytes;
  }
}
