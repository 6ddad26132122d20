// Turns a frame, an image and the display settings into pixels. Each stage is recomputed only when needed.

import { barColors, barTicks, type Tick } from "./bar.ts";
import { blendInto, blendSmall, type Mix, makeMix } from "./blend.ts";
import { clipLimits, histogram, type Limits, totalMagnitude } from "./clip.ts";
import { type Display, lookOf } from "./display.ts";
import { codeValue, type Frame, nearest, type Pixels, type Raster } from "./frame.ts";
import { cumulate, type Pooled } from "./scale.ts";
import type { Reading } from "./text.ts";

/** Caches one result until one of its inputs changes. */
class Memo<T> {
  #key: readonly unknown[] | null = null;
  #value: T | undefined;

  get(key: readonly unknown[], compute: () => T): T {
    const last = this.#key;
    if (!last || last.length !== key.length || key.some((k, i) => !Object.is(k, last[i]))) {
      this.#value = compute();
      this.#key = key;
    }
    return this.#value as T;
  }
}

export class Composer {
  readonly #counts = new WeakMap<Frame, Uint32Array>();
  readonly #pooled = new Memo<Pooled>();
  readonly #total = new Memo<number>();
  readonly #limits = new Memo<Limits>();
  readonly #mix = new Memo<Mix>();
  readonly #blended = new Memo<Pixels>();
  #bytes = new Uint8ClampedArray(0);

  /**
   * Blend the map over the image, or over plain gray without an image. Returns the same object while nothing has
   * changed; its bytes are valid until the next call.
   *
   * @param limits of the color scale; default: the map's own percentiles
   */
  blend(
    frame: Frame,
    image: Pixels | null,
    display: Display,
    limits: Limits = this.limits(frame, display),
  ): Pixels {
    const { signed } = frame;
    const look = lookOf(display, signed);
    const key = [...limits, ...Object.values(look)];
    return this.#blended.get([frame, image, ...key], () => {
      const under = image ?? plain(frame.width, frame.height);
      if (this.#bytes.length !== under.data.length) this.#bytes = new Uint8ClampedArray(under.data.length);
      if (under.width * under.height < 65536) {
        blendSmall(this.#bytes, under, frame, limits, look);
      } else {
        const mix = this.#mix.get([signed, ...key], () => makeMix(signed, limits, look));
        blendInto(this.#bytes, under, frame, mix);
      }
      return { width: under.width, height: under.height, data: this.#bytes };
    });
  }

  /** The ends of the color scale, in codes. */
  limits(frame: Frame, display: Display): Limits {
    const counts = this.#histogram(frame);
    const [low, high] = display.clip;
    return this.#limits.get([counts, low, high], () => clipLimits(counts, frame.codes.length, [low, high]));
  }

  bar(
    frame: Frame,
    display: Display,
    ticks: number,
    limits: Limits = this.limits(frame, display),
  ): { row: Uint8ClampedArray<ArrayBuffer>; ticks: Tick[] } {
    return {
      row: barColors(frame.signed, limits, lookOf(display, frame.signed)),
      ticks: barTicks(frame, limits, ticks),
    };
  }

  /** The map's value at one pixel of an image of this size. */
  read(frame: Frame | null, size: Raster, x: number, y: number): Reading {
    if (!frame) return { x, y, value: null, share: 0 };
    const row = nearest(y, size.height, frame.height);
    const column = nearest(x, size.width, frame.width);
    const value = codeValue(frame, frame.codes[row * frame.width + column]);
    const counts = this.#histogram(frame);
    const total = this.#total.get([counts], () => totalMagnitude(counts, frame));
    return { x, y, value, share: total > 0 ? Math.abs(value) / total : 0 };
  }

  /** The map's statistics for a scale that it shares with others. */
  pooled(frame: Frame): Pooled {
    return this.#pooled.get([frame], () => ({
      cumulative: cumulate(this.#histogram(frame)),
      high: frame.high,
    }));
  }

  #histogram(frame: Frame): Uint32Array {
    const cached = this.#counts.get(frame);
    if (cached) return cached;
    const counts = histogram(frame.codes, frame.signed);
    this.#counts.set(frame, counts);
    return counts;
  }
}

function plain(width: number, height: number): Pixels {
  const data = new Uint8ClampedArray(4 * width * height).fill(128);
  for (let i = 3; i < data.length; i += 4) data[i] = 255;
  return { width, height, data };
}
