// Recorded results, with an entry for each combination of the axes that apply.

/** A setting that can be changed on the page, such as the number of samples. */
export interface Axis {
  readonly name: string;
  readonly label: string;
  readonly help: string;
  readonly labels: readonly string[];
  /** The index with which the page opens. */
  readonly begin: number;
  /** Whether the values are ordered numbers, shown as a slider instead of a menu. */
  readonly ordered: boolean;
  /** Another axis and the indices at which this axis applies; if missing, it always applies. */
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

  /** Whether the axis applies to the current selection on the other axes. */
  matters({ only }: Axis): boolean {
    if (!only) return true;
    const at = this.#at.get(only.axis);
    return at === undefined || only.at.includes(at);
  }

  /** The key of the entry: the index on each axis, "-" if the axis doesn't apply. */
  get key(): string {
    return this.axes.map((axis) => (this.matters(axis) ? this.#at.get(axis.name) : "-")).join(" ");
  }
}
