// Recorded results: an entry for each combination of the axes that matter.

/** Something that can be chosen on the page, such as the number of samples. */
export interface Axis {
  readonly name: string;
  readonly label: string;
  readonly help: string;
  readonly labels: readonly string[];
  /** The index when the page opens. */
  readonly begin: number;
  /** Numbers in order: a slider; else a menu. */
  readonly ordered: boolean;
  /** Indices of another axis at which this one matters; without them it always does. */
  readonly only?: { readonly axis: string; readonly at: readonly number[] };
}

export class Recording {
  readonly #at: Map<string, number>;

  constructor(readonly axes: readonly Axis[]) {
    this.#at = new Map(axes.map(({ name, begin }) => [name, begin]));
  }

  at(name: string): number | undefined {
    return this.#at.get(name);
  }

  choose(name: string, index: number): void {
    const axis = this.axes.find((one) => one.name === name);
    if (axis) this.#at.set(name, Math.min(axis.labels.length - 1, Math.max(0, Math.round(index))));
  }

  /** Whether the axis matters for what is chosen elsewhere. */
  matters({ only }: Axis): boolean {
    if (!only) return true;
    const at = this.#at.get(only.axis);
    return at === undefined || only.at.includes(at);
  }

  /** Names the entry: the index on each axis, "-" where it doesn't matter. */
  get key(): string {
    return this.axes.map((axis) => (this.matters(axis) ? this.#at.get(axis.name) : "-")).join(" ");
  }
}
