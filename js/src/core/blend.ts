// The picture with the map laid over it. The same numbers as saliency_widgets.render.blend, byte for byte.

import { type Limits, magnitude, strength } from "./clip.ts";
import { nearest } from "./frame.ts";

/** The order of the `blend` trait. */
export const BLENDS = ["by value", "uniform"] as const;
export type Blend = (typeof BLENDS)[number];

export interface Look {
  opacity: number;
  threshold: number;
  blend: Blend;
}

/** What every code turns into: its row in the colour table, and how much it covers. */
export interface Tables {
  readonly index: Uint8Array;
  readonly alpha: Float64Array;
}

export interface Raster {
  readonly width: number;
  readonly height: number;
}

export function makeTables(signed: boolean, limits: Limits, look: Look): Tables {
  const index = new Uint8Array(65536);
  const alpha = new Float64Array(65536);
  for (let code = 0; code < 65536; code++) {
    const t = strength(code, signed, limits);
    const s = magnitude(t, signed);
    index[code] = Math.floor(t * 255 + 0.5);
    alpha[code] = s < look.threshold ? 0 : look.blend === "by value" ? look.opacity * s : look.opacity;
  }
  return { index, alpha };
}

/** Blend into `out`. `picture` and `out` are RGBA of one size; the map is looked up at the nearest pixel. */
export function blendInto(
  out: Uint8ClampedArray,
  picture: Uint8ClampedArray,
  size: Raster,
  codes: Uint16Array,
  map: Raster,
  tables: Tables,
  lut: Uint8Array,
): void {
  const { index, alpha } = tables;
  const { width, height } = size;
  // Plain bytes are written faster than clamped ones; nothing here leaves 0 to 255, so | 0 is floor.
  const from = new Uint8Array(picture.buffer, picture.byteOffset, picture.length);
  const to = new Uint8Array(out.buffer, out.byteOffset, out.length);
  const columns = Int32Array.from({ length: width }, (_, x) => nearest(x, width, map.width));
  for (let y = 0, i = 0; y < height; y++) {
    const row = nearest(y, height, map.height) * map.width;
    for (let x = 0; x < width; x++, i += 4) {
      const code = codes[row + columns[x]];
      const a = alpha[code];
      const b = 1 - a;
      const colour = index[code] * 3;
      to[i] = (from[i] * b + lut[colour] * a + 0.5) | 0;
      to[i + 1] = (from[i + 1] * b + lut[colour + 1] * a + 0.5) | 0;
      to[i + 2] = (from[i + 2] * b + lut[colour + 2] * a + 0.5) | 0;
      to[i + 3] = 255;
    }
  }
}
