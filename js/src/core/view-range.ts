// The part of a signal that is shown: zoomed and moved within its ends.

export class ViewRange {
  #from = 0;
  #to: number;

  /** @param samples the length of the signal */
  constructor(readonly samples: number) {
    this.#to = samples;
  }

  /** The first sample that is shown, may be a fraction. */
  get from(): number {
    return this.#from;
  }

  get to(): number {
    return this.#to;
  }

  get span(): number {
    return this.#to - this.#from;
  }

  get whole(): boolean {
    return this.span >= this.samples;
  }

  /** Zoom by a factor above 1 to see less, such that the sample at `around` keeps its position. */
  zoom(factor: number, around: number): void {
    const least = Math.min(this.samples, 8);
    const span = Math.min(this.samples, Math.max(least, this.span / factor));
    const share = (around - this.#from) / this.span;
    this.#show(around - share * span, span);
  }

  move(samples: number): void {
    this.#show(this.#from + samples, this.span);
  }

  /** Move as little as needed to show a sample. */
  reveal(sample: number): void {
    if (sample < this.#from) this.#show(sample, this.span);
    else if (sample + 1 > this.#to) this.#show(sample + 1 - this.span, this.span);
  }

  reset(): void {
    this.#show(0, this.samples);
  }

  #show(from: number, span: number): void {
    this.#from = Math.min(this.samples - span, Math.max(0, from));
    this.#to = this.#from + span;
  }
}
