// The difference of two maps as a signed map. Computes the same values as saliency_widgets.render.difference.

import { codeValue, type Frame, LEVELS, ZERO } from "./frame.ts";

/** A divisor for each of the two maps; 1 if their values are directly comparable. */
export type Units = readonly [a: number, b: number];

/** a / units[0] - b / units[1]; null if the two differ in size. */
export function difference(a: Frame, b: Frame, units: Units = [1, 1]): Frame | null {
  if (a.width !== b.width || a.height !== b.height) return null;
  const values = Float64Array.from(
    a.codes,
    (code, i) => codeValue(a, code) / units[0] - codeValue(b, b.codes[i]) / units[1],
  );
  let high = 0;
  for (const value of values) high = Math.max(high, Math.abs(value));
  const span = 2 * high;
  const codes = new Uint16Array(values.length).fill(ZERO);
  if (span > 0) {
    for (let i = 0; i < codes.length; i++) codes[i] = Math.floor(((values[i] + high) / span) * LEVELS + 0.5);
  }
  const { generation, index, final, width, height } = a;
  return { generation, index, final, width, height, low: 0 - high, high, signed: true, codes };
}
