// Reduces a lane of samples to the columns of a screen, such that no extreme is lost.

import { ZERO } from "./frame.ts";

/** The first sample of each column and, at the end, the one after the last: `columns + 1` numbers. */
export type Edges = Int32Array;

/**
 * The samples of each column of a view: those that begin in it, so each sample belongs to one column. With fewer samples
 * than columns, some columns have none.
 *
 * @param from the first sample that is shown, may be a fraction
 * @param to the end of the last sample that is shown
 */
export function edgesOf(from: number, to: number, columns: number, samples: number): Edges {
  const edges = new Int32Array(columns + 1);
  const step = (to - from) / columns;
  for (let i = 0; i <= columns; i++) {
    edges[i] = Math.min(samples, Math.max(0, Math.ceil(from + i * step)));
  }
  return edges;
}

/**
 * The lowest and the highest value of each column: [low, high, low, high, ...]. A column without samples has those of
 * the column before, so that a line drawn through them has no gap.
 *
 * @param offset the index of the lane's first sample
 */
export function decimate(values: Float32Array, offset: number, edges: Edges): Float32Array {
  const columns = edges.length - 1;
  const ends = new Float32Array(2 * columns);
  let low = 0;
  let high = 0;
  for (let i = 0; i < columns; i++) {
    const end = offset + edges[i + 1];
    let k = offset + edges[i];
    if (k < end) {
      low = values[k];
      high = low;
      for (k++; k < end; k++) {
        const value = values[k];
        if (value < low) low = value;
        else if (value > high) high = value;
      }
    }
    ends[2 * i] = low;
    ends[2 * i + 1] = high;
  }
  return ends;
}

/**
 * The code farthest from zero of each column, written to `out`: in a map without a sign, the highest code. A column
 * without samples has the code of the sample that it shows a part of.
 *
 * @param start the index of the column in `out`
 */
export function strongest(
  codes: Uint16Array,
  offset: number,
  edges: Edges,
  signed: boolean,
  out: Uint16Array,
  start: number,
): void {
  const columns = edges.length - 1;
  const zero = signed ? ZERO : 0;
  for (let i = 0; i < columns; i++) {
    let k = offset + edges[i];
    const end = offset + edges[i + 1];
    if (k >= end) {
      out[start + i] = codes[Math.max(offset, k - 1)];
      continue;
    }
    let low = codes[k];
    let high = low;
    for (k++; k < end; k++) {
      const code = codes[k];
      if (code < low) low = code;
      else if (code > high) high = code;
    }
    out[start + i] = high - zero >= zero - low ? high : low;
  }
}

/** Positions of at most `count` round numbers from `from` to `to`, and the number of decimals that they need. */
export function roundTicks(from: number, to: number, count: number): { ticks: number[]; decimals: number } {
  const span = to - from;
  if (!(span > 0) || count < 1) return { ticks: [], decimals: 0 };
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = power * ([1, 2, 5, 10].find((factor) => span / (power * factor) <= count) ?? 10);
  const ticks: number[] = [];
  // Multiples of the step instead of sums, which would add up rounding errors.
  for (let k = Math.ceil(from / step); k * step <= to; k++) ticks.push(k * step);
  return { ticks, decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}
