// The color bar, which shows the value of each color. Computes the same values as saliency_widgets.render.bar.

import { type Limits, magnitude, strength } from "./clip.ts";
import type { Look } from "./display.ts";
import { codeValue, LEVELS, ZERO } from "./frame.ts";
import { formatNumber } from "./text.ts";

export interface Tick {
  position: number;
  value: number;
  label: string;
}

/** The codes at the two ends. Equal limits are drawn one level apart. */
export function barEnds(signed: boolean, [lo, hi]: Limits): [number, number] {
  if (signed) {
    const reach = hi > lo ? hi : Math.min(lo + 1, ZERO);
    return [ZERO - reach, ZERO + reach];
  }
  return [lo, hi > lo ? hi : Math.min(lo + 1, LEVELS)];
}

/** A row of RGBA pixels, transparent where the threshold hides the value. */
export function barColors(
  signed: boolean,
  limits: Limits,
  { lut, threshold }: Look,
  width = 256,
): Uint8ClampedArray<ArrayBuffer> {
  const [start, end] = barEnds(signed, limits);
  const row = new Uint8ClampedArray(4 * width);
  for (let i = 0; i < width; i++) {
    const t = strength(start + (i / (width - 1)) * (end - start), signed, limits);
    const color = Math.floor(t * 255 + 0.5) * 3;
    row[4 * i] = lut[color];
    row[4 * i + 1] = lut[color + 1];
    row[4 * i + 2] = lut[color + 2];
    row[4 * i + 3] = magnitude(t, signed) < threshold ? 0 : 255;
  }
  return row;
}

/** Evenly spaced labels including both ends; a single label if the whole bar has one value. */
export function barTicks(
  map: { low: number; high: number; signed: boolean },
  limits: Limits,
  count = 5,
): Tick[] {
  const ends = barEnds(map.signed, limits);
  const end = codeValue(map, ends[1]);
  const start = map.signed ? -end : codeValue(map, ends[0]);
  if (start === end) return [{ position: 0, value: start, label: formatNumber(start) }];
  return Array.from({ length: count }, (_, i) => {
    const position = i / (count - 1);
    const value = start * (1 - position) + end * position;
    // A value that is tiny compared with the other labels is a rounded zero.
    const small = Math.abs(value) < 0.0005 * Math.max(Math.abs(start), Math.abs(end));
    return { position, value, label: small ? "0" : formatNumber(value) };
  });
}
