// Converts codes to strengths. Computes the same values as saliency_widgets.render.clip.

import { codeValue, LEVELS, ZERO } from "./frame.ts";

/** The lowest and highest level in code units; magnitudes for a signed map. */
export type Limits = readonly [lo: number, hi: number];

/** The number of pixels of each code, or of each magnitude |code - 32767| in a signed map. */
export function histogram(codes: Uint16Array, signed: boolean): Uint32Array {
  // One more than a valid map needs, so that a damaged code is counted within the array.
  const counts = new Uint32Array(signed ? ZERO + 2 : LEVELS + 2);
  if (signed) {
    for (let i = 0; i < codes.length; i++) counts[Math.abs(codes[i] - ZERO)]++;
  } else {
    for (let i = 0; i < codes.length; i++) counts[codes[i]]++;
  }
  return counts;
}

/** The levels at two percentiles: the smallest levels that at least max(1, ceil(p n / 100)) pixels don't exceed. */
export function clipLimits(counts: Uint32Array, n: number, clip: readonly [number, number]): Limits {
  const rank = (p: number) => Math.min(n, Math.max(1, Math.ceil((p * n) / 100)));
  const low = rank(clip[0]);
  const high = rank(clip[1]);
  let seen = 0;
  let lo = -1;
  for (let level = 0; level < counts.length; level++) {
    seen += counts[level];
    if (lo < 0 && seen >= low) lo = level;
    if (lo >= 0 && seen >= high) return [lo, level];
  }
  return [Math.max(lo, 0), Math.max(lo, 0)];
}

/** The position of a code on the color scale, 0 to 1; in a signed map 0.5 is zero. */
export function strength(code: number, signed: boolean, [lo, hi]: Limits): number {
  const level = signed ? Math.abs(code - ZERO) : code;
  const s = hi > lo ? Math.min(1, Math.max(0, (level - lo) / (hi - lo))) : level > lo ? 1 : 0;
  return signed ? 0.5 + 0.5 * Math.sign(code - ZERO) * s : s;
}

/** The distance from zero, 0 to 1, on which threshold and opacity depend. */
export function magnitude(t: number, signed: boolean): number {
  return signed ? Math.abs(2 * t - 1) : t;
}

/** The sum of |value| over the whole map, from its histogram. */
export function totalMagnitude(
  counts: Uint32Array,
  map: { low: number; high: number; signed: boolean },
): number {
  let total = 0;
  for (let level = 0; level < counts.length; level++) {
    if (counts[level]) {
      total += counts[level] * Math.abs(codeValue(map, map.signed ? ZERO + level : level));
    }
  }
  return total;
}
