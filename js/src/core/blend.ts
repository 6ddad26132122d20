// The image with the map laid over it. The same numbers as saliency_widgets.render.blend, byte for byte.

import { type Limits, magnitude, strength } from "./clip.ts";
import { nearest, ZERO } from "./frame.ts";

/** The order of the `blend` trait. */
export const BLENDS = ["by value", "uniform"] as const;
export type Blend = (typeof BLENDS)[number];

export interface Look {
  opacity: number;
  threshold: number;
  blend: Blend;
}

export interface Raster {
  readonly width: number;
  readonly height: number;
}

/**
 * What every code does to a pixel: four numbers each, (1 - alpha, red alpha, green alpha, blue alpha). The
 * products are the ones of the formula, so that the sum is exact; a pixel then costs three of them.
 */
export type Mix = Float64Array;

export function makeMix(signed: boolean, limits: Limits, look: Look, lut: Uint8Array): Mix {
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

/** Blend into `out`. `image` and `out` are RGBA of one size; the map is looked up at the nearest pixel. */
export function blendInto(
  out: Uint8ClampedArray,
  image: Uint8ClampedArray,
  size: Raster,
  codes: Uint16Array,
  map: Raster,
  mix: Mix,
): void {
  const { width, height } = size;
  // Plain bytes are written faster than clamped ones; nothing here leaves 0 to 255, so | 0 is floor.
  const from = new Uint8Array(image.buffer, image.byteOffset, image.length);
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
 * The same without a table of all codes: sooner where there are fewer pixels than codes. `makeMix` and `blendInto`
 * state the formula; this writes the same bytes.
 */
export function blendSmall(
  out: Uint8ClampedArray,
  image: Uint8ClampedArray,
  size: Raster,
  codes: Uint16Array,
  map: Raster,
  signed: boolean,
  [lo, hi]: Limits,
  look: Look,
  lut: Uint8Array,
): void {
  const { width, height } = size;
  const { opacity, threshold } = look;
  const byValue = look.blend === "by value";
  const from = new Uint8Array(image.buffer, image.byteOffset, image.length);
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
