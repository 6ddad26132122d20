// Combines many paint requests into one paint per animation frame.

export interface FrameClock {
  request(callback: () => void): number;
  cancel(handle: number): void;
}

const ANIMATION: FrameClock = {
  request: (callback) => requestAnimationFrame(callback),
  cancel: (handle) => cancelAnimationFrame(handle),
};

/** The causes of a paint, most informative first. Of several in one animation frame, the first is reported. */
export const CAUSES = ["frame", "display", "layer", "resize"] as const;
export type Cause = (typeof CAUSES)[number];

export class Coalescer {
  #handle: number | null = null;
  readonly #causes = new Set<Cause>();

  constructor(
    private readonly paint: (cause: Cause) => void,
    private readonly clock: FrameClock = ANIMATION,
  ) {}

  request(cause: Cause): void {
    this.#causes.add(cause);
    this.#handle ??= this.clock.request(() => this.#run());
  }

  cancel(): void {
    if (this.#handle !== null) this.clock.cancel(this.#handle);
    this.#handle = null;
    this.#causes.clear();
  }

  #run(): void {
    const cause = CAUSES.find((c) => this.#causes.has(c));
    this.#handle = null;
    this.#causes.clear();
    if (cause) this.paint(cause);
  }
}
