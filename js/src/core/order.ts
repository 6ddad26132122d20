// (generation, index) never goes backwards, and every painted frame is acknowledged once.

export interface Stamp {
  readonly generation: number;
  readonly index: number;
}

/** Below zero when `a` is older than `b`. */
export function compare(a: Stamp, b: Stamp): number {
  return a.generation - b.generation || a.index - b.index;
}

/** Keeps the newest of what arrives. */
export class Newest<T extends Stamp> {
  #current: T | null = null;

  get current(): T | null {
    return this.#current;
  }

  /** Take it unless it is older than the one held, or is that one sent again; say whether it was taken. */
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

/** The messages acknowledged so far, by any view: several views of one model answer once. */
const ANSWERED = new WeakSet<object>();

/**
 * Tells the kernel that a frame is on the screen. A hidden tab paints nothing: after `patience` ms the frame
 * is acknowledged all the same, so that the kernel goes on.
 */
export class Acknowledger {
  #due: { stamp: Stamp; message: object } | null = null;
  #timer: unknown = null;

  constructor(
    private readonly send: (stamp: Stamp) => void,
    private readonly patience = 250,
    private readonly timers: Timers = CLOCK,
  ) {}

  /** A frame was received in `message`. The one before it, if it is still due, is superseded. */
  expect(stamp: Stamp, message: object): void {
    this.#due = { stamp, message };
    if (this.#timer === null) this.#timer = this.timers.set(() => this.#expire(), this.patience);
  }

  /** The frame that is due was painted. */
  painted(): void {
    this.#stop();
    const due = this.#due;
    this.#due = null;
    if (!due || ANSWERED.has(due.message)) return;
    ANSWERED.add(due.message);
    this.send({ generation: due.stamp.generation, index: due.stamp.index });
  }

  /** Forget what is due: the view is gone. */
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
 * Take what arrived in `message`; nothing at all starts over: the next one may have any number. False where it is
 * older than what is held, or the same again.
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
