// Blends a map over an image. Computes the same bytes as saliency_widgets.render.blend.

import { type Limits, magnitude, strength } from "./clip.ts";
import type { Look } from "./display.ts";
import { type Frame, nearest, type Pixels, ZERO } from "./frame.ts";

/**
 * The effect of each code on a pixel, as four numbers: (1 - alpha, red alpha, green alpha, blue alpha). The
 * products are those of the formula, so that the sum is exact; each pixel then takes three multiplications.
 */
export type Mix = Float64Array;

export function makeMix(signed: boolean, limits: Limits, look: Look): Mix {
  const { lut } = look;
  const mix = new Float64Array(4 * 65536);
  for (let code = 0, k = 0; code < 65536; code++, k += 4) {
    const t = strength(code, signed, limits);
    const s = magnitude(t, signed);
    const alpha = s < look.threshold ? 0 : look.blend === "by value" ? look.opacity * s : look.opacity;
    const color = Math.floor(t * 255 + 0.5) * 3;
    mix[k] = 1 - alpha;
    mix[k + 1] = lut[color] * alpha;
    mix[k + 2] = lut[color + 1] * alpha;
    mix[k + 3] = lut[color + 2] * alpha;
  }
  return mix;
}

/** Blend into `out`, which has the image's size, with the map sampled at the nearest pixel. */
export function blendInto(out: Uint8ClampedArray, image: Pixels, map: Frame, mix: Mix): void {
  const { width, height, data } = image;
  const { codes } = map;
  // Plain byte arrays are faster to write than clamped ones. All values are within 0 to 255, so | 0 is floor.
  const from = new Uint8Array(data.buffer, data.byteOffset, data.length);
  const to = new Uint8Array(out.buffer, out.byteOffset, out.length);
  const columns = Int32Array.from({ length: width }, (_, x) => nearest(x, width, map.width));
  for (let y = 0, i = 0; y < height; y++) {
    const row = nearest(y, height, map.height) * map.width;
    for (let x = 0; x < width; x++, i += 4) {
      const k = 4 * codes[row + columns[x]];
      const rest = mix[k];
      to[i] = (from[i] * rest + mix[k + 1] + 0.5) | 0;
      to[i + 1] = (from[i + 1] * rest + mix[k + 2] + 0.5) | 0;
      to[i + 2] = (from[i + 2] * rest + mix[k + 3] + 0.5) | 0;
      to[i + 3] = 255;
    }
  }
}

/**
 * Blend without a table of all codes, which is faster if there are fewer pixels than codes. `makeMix` and
 * `blendInto` define the formula; this function writes the same bytes.
 */
export function blendSmall(
  out: Uint8ClampedArray,
  image: Pixels,
  map: Frame,
  [lo, hi]: Limits,
  look: Look,
): void {
  const { width, height, data } = image;
  const { codes, signed } = map;
  const { opacity, threshold, lut } = look;
  const byValue = look.blend === "by value";
  const from = new Uint8Array(data.buffer, data.byteOffset, data.length);
  const to = new Uint8Array(out.buffer, out.byteOffset, out.length);
  const columns = Int32Array.from({ length: width }, (_, x) => nearest(x, width, map.width));
  const span = hi - lo;
  for (let y = 0, i = 0; y < height; y++) {
    const row = nearest(y, height, map.height) * map.width;
    for (let x = 0; x < width; x++, i += 4) {
      const code = codes[row + columns[x]];
      const level = signed ? (code < ZERO ? ZERO - code : code - ZERO) : code;
      let t = level > lo ? 1 : 0;
      if (span > 0) {
        t = (level - lo) / span;
        t = Math.max(0, Math.min(1, t));
      }
      let s = t;
      if (signed) {
        t = code < ZERO ? 0.5 - 0.5 * t : code > ZERO ? 0.5 + 0.5 * t : 0.5;
        s = 2 * t - 1;
        if (s < 0) s = -s;
      }
      const alpha = s < threshold ? 0 : byValue ? opacity * s : opacity;
      const rest = 1 - alpha;
      const color = ((t * 255 + 0.5) | 0) * 3;
      to[i] = (from[i] * rest + lut[color] * alpha + 0.5) | 0;
      to[i + 1] = (from[i + 1] * rest + lut[color + 1] * alpha + 0.5) | 0;
      to[i + 2] = (from[i + 2] * rest + lut[color + 2] * alpha + 0.5) | 0;
      to[i + 3] = 255;
    }
  }
}
