// A color scale shared by several maps. Computes the same values as saliency_widgets.render.shared_scale.

import type { Limits } from "./clip.ts";
import { type Frame, LEVELS, ZERO } from "./frame.ts";

/** The statistics of one map: the number of pixels at or below each level, and the value of the highest level. */
export interface Pooled {
  readonly cumulative: Uint32Array;
  readonly high: number;
}

/** The ends of a scale in the maps' own unit; magnitudes for signed maps. */
export type Ends = readonly [lo: number, hi: number];

export function cumulate(counts: Uint32Array): Uint32Array {
  const sums = new Uint32Array(counts.length);
  let sum = 0;
  for (let i = 0; i < counts.length; i++) {
    sum += counts[i];
    sums[i] = sum;
  }
  return sums;
}

/** The highest level that a map can have; the highest magnitude for a signed map. */
export function highest(signed: boolean): number {
  return signed ? ZERO : LEVELS;
}

/** The values at two percentiles of all maps' pixels: the smallest values that at least that share doesn't exceed. */
export function sharedEnds(maps: readonly Pooled[], signed: boolean, clip: readonly [number, number]): Ends {
  const top = highest(signed);
  const n = maps.reduce((sum, { cumulative }) => sum + (cumulative.at(-1) ?? 0), 0);
  if (n === 0) return [0, 0];
  const at = (p: number) => valueAt(maps, top, Math.min(n, Math.max(1, Math.ceil((p * n) / 100))));
  return [at(clip[0]), at(clip[1])];
}

function valueAt(maps: readonly Pooled[], top: number, rank: number): number {
  const reaches = (value: number) => {
    let seen = 0;
    for (const { cumulative, high } of maps) seen += cumulative[levelBelow(value, high, top)];
    return seen >= rank;
  };
  let below = -1;
  let above = maps.reduce((most, { high }) => Math.max(most, high), 0);
  if (reaches(0)) return 0;
  for (let turn = 0; turn < 200; turn++) {
    const middle = below < 0 ? above / 2 : below + (above - below) / 2;
    if (middle === below || middle === above) break;
    if (reaches(middle)) above = middle;
    else below = middle;
  }
  return above;
}

function levelBelow(value: number, high: number, top: number): number {
  if (high <= 0) return top;
  let level = Math.max(0, Math.min(top, Math.floor((value / high) * top)));
  // Correct for rounding of the division in the last bit; a level's own value must map to that level.
  while (level < top && ((level + 1) / top) * high <= value) level++;
  while (level > 0 && (level / top) * high > value) level--;
  return level;
}

/** The ends as levels of one map, including fractions of a level. */
export function limitsOf({ high, signed }: Pick<Frame, "high" | "signed">, [lo, hi]: Ends): Limits {
  const top = highest(signed);
  return high > 0 ? [(lo / high) * top, (hi / high) * top] : [0, 0];
}
