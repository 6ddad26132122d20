// Ensures that (generation, index) never decreases and that every painted frame is acknowledged once.

export interface Stamp {
  readonly generation: number;
  readonly index: number;
}

/** Negative if `a` is older than `b`. */
export function compare(a: Stamp, b: Stamp): number {
  return a.generation - b.generation || a.index - b.index;
}

/** Holds the newest of the received items. */
export class Newest<T extends Stamp> {
  #current: T | null = null;

  get current(): T | null {
    return this.#current;
  }

  /** Accept an item unless it is as old as the current one or older; returns whether it was accepted. */
  offer(item: T): boolean {
    if (this.#current && compare(item, this.#current) <= 0) return false;
    this.#current = item;
    return true;
  }

  clear(): void {
    this.#current = null;
  }
}

export interface Timers {
  set(callback: () => void, ms: number): unknown;
  clear(handle: unknown): void;
}

const CLOCK: Timers = {
  set: (callback, ms) => setTimeout(callback, ms),
  clear: (handle) => clearTimeout(handle as ReturnType<typeof setTimeout>),
};

/** The messages acknowledged so far by any view, since several views of a model send only one acknowledgment. */
const ANSWERED = new WeakSet<object>();

/**
 * Acknowledges painted frames to the kernel. A hidden tab paints nothing, so after `patience` ms the frame is
 * acknowledged anyway and the kernel can continue.
 */
export class Acknowledger {
  #due: { stamp: Stamp; message: object } | null = null;
  #timer: unknown = null;

  constructor(
    private readonly send: (stamp: Stamp) => void,
    private readonly patience = 250,
    private readonly timers: Timers = CLOCK,
  ) {}

  /** Record a frame received in `message`. It supersedes a previous frame that is still pending. */
  expect(stamp: Stamp, message: object): void {
    this.#due = { stamp, message };
    if (this.#timer === null) this.#timer = this.timers.set(() => this.#expire(), this.patience);
  }

  /** Acknowledge the pending frame, which was painted. */
  painted(): void {
    this.#stop();
    const due = this.#due;
    this.#due = null;
    if (!due || ANSWERED.has(due.message)) return;
    ANSWERED.add(due.message);
    this.send({ generation: due.stamp.generation, index: due.stamp.index });
  }

  /** Drop the pending frame, because the view is gone. */
  cancel(): void {
    this.#stop();
    this.#due = null;
  }

  #expire(): void {
    this.#timer = null;
    this.painted();
  }

  #stop(): void {
    if (this.#timer !== null) this.timers.clear(this.#timer);
    this.#timer = null;
  }
}

/**
 * Process the item received in `message`. Without an item the order restarts, so that the next one may have any
 * number. Returns false if the item is older than the current one or a repetition of it.
 */
export function receive<T extends Stamp>(
  item: T | null,
  message: object | undefined,
  newest: Newest<T>,
  acknowledge: Acknowledger,
): boolean {
  if (!item || !message) {
    newest.clear();
    acknowledge.cancel();
    return true;
  }
  if (!newest.offer(item)) return false;
  acknowledge.expect(item, message);
  return true;
}
