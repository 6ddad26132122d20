// js/core against saliency_widgets.render: the same numbers, byte for byte.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { barColors, barTicks } from "../src/core/bar.ts";
import { BLENDS, type Blend, blendInto, blendSmall, makeMix } from "../src/core/blend.ts";
import { clipLimits, histogram, type Limits, strength, totalMagnitude } from "../src/core/clip.ts";
import { Composer, type Pixels } from "../src/core/compose.ts";
import { difference } from "../src/core/difference.ts";
import { codeValue, decodeFrame, type Frame } from "../src/core/frame.ts";
import { cumulate, limitsOf, sharedEnds } from "../src/core/scale.ts";
import { formatNumber } from "../src/core/text.ts";

interface Case {
  name: string;
  codes: string;
  shape: [number, number];
  low: number;
  high: number;
  signed: boolean;
  clip: [number, number];
  limits: Limits;
  opacity: number;
  threshold: number;
  blend: Blend;
  lut: string;
  strength: number[];
  values: number[];
  shares: number[];
  image: string;
  imageShape: [number, number];
  blended: string;
  bar: string;
  ticks: [number, number, string][][];
}

interface Coded {
  codes: string;
  low: number;
  high: number;
}

interface Shared {
  signed: boolean;
  shape: [number, number];
  clip: [number, number];
  maps: Coded[];
  ends: [number, number];
  limits: Limits[];
  units: [number, number];
  difference: Coded;
}

const GOLDENS = JSON.parse(readFileSync(new URL("goldens.json", import.meta.url), "utf8")) as {
  cases: Case[];
  shared: Shared[];
  numbers: [number, string][];
  blends: string[];
};

const bytes = (text: string) => new Uint8Array(Buffer.from(text, "base64"));

function frameOf(c: Case): Frame {
  const raw = bytes(c.codes);
  // As it arrives: a view at an odd offset of a larger buffer.
  const message = new Uint8Array(raw.length + 3);
  message.set(raw, 3);
  const codes = new DataView(message.buffer, 3, raw.length);
  const [height, width] = c.shape;
  const { low, high, signed } = c;
  const frame = decodeFrame({
    generation: 1,
    index: 0,
    final: true,
    height,
    width,
    low,
    high,
    signed,
    codes,
  });
  if (!frame) throw new Error("the frame was not decoded");
  return frame;
}

function rgba(c: Case): Pixels {
  const rgb = bytes(c.image);
  const [height, width] = c.imageShape;
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let i = 0; i < width * height; i++) data.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i);
  return { width, height, data };
}

function rgb(data: Uint8ClampedArray): Uint8Array {
  return Uint8Array.from({ length: (data.length / 4) * 3 }, (_, i) => data[4 * Math.floor(i / 3) + (i % 3)]);
}

describe.each(GOLDENS.cases.map((c) => [c.name, c] as const))("%s", (_, c) => {
  const frame = frameOf(c);
  const lut = bytes(c.lut);

  it("has the same values and shares", () => {
    expect(Array.from(frame.codes, (code) => codeValue(frame, code))).toEqual(c.values);
    const total = totalMagnitude(histogram(frame.codes, frame.signed), frame);
    const shares = Array.from(frame.codes, (code) =>
      total > 0 ? Math.abs(codeValue(frame, code)) / total : 0,
    );
    expect(shares).toHaveLength(c.shares.length);
    // The two add up the same numbers in another order.
    const apart = shares.filter((share, i) => !(Math.abs(share - c.shares[i]) <= 1e-9 * c.shares[i]));
    expect(apart).toEqual([]);
  });

  it("has the same limits and strength", () => {
    const limits = clipLimits(histogram(frame.codes, frame.signed), frame.codes.length, c.clip);
    expect(limits).toEqual(c.limits);
    expect(Array.from(frame.codes, (code) => strength(code, frame.signed, limits))).toEqual(c.strength);
  });

  it("has the same pixels", () => {
    const image = rgba(c);
    const out = new Uint8ClampedArray(image.data.length);
    const mix = makeMix(c.signed, c.limits, c, lut);
    blendInto(out, image.data, image, frame.codes, frame, mix);
    expect(rgb(out)).toEqual(bytes(c.blended));
    expect(out.every((v, i) => i % 4 !== 3 || v === 255)).toBe(true);
    const small = new Uint8ClampedArray(image.data.length);
    blendSmall(small, image.data, image, frame.codes, frame, c.signed, c.limits, c, lut);
    expect(small).toEqual(out);
  });

  it("is composed to the same pixels", () => {
    const blend = BLENDS.indexOf(c.blend);
    const display = { lut, diverging: lut, opacity: c.opacity, clip: c.clip, threshold: c.threshold, blend };
    const composer = new Composer();
    const image = rgba(c);
    const pixels = composer.blend(frame, image, display);
    expect(rgb(pixels.data)).toEqual(bytes(c.blended));
    // Nothing changed: nothing is computed again.
    expect(composer.blend(frame, image, { ...display })).toBe(pixels);
  });

  it("has the same color bar", () => {
    expect(new Uint8Array(barColors(c.signed, c.limits, lut, c.threshold))).toEqual(bytes(c.bar));
    for (const [i, count] of [3, 5].entries()) {
      const ticks = barTicks(frame, c.limits, count).map((k) => [k.position, k.value, k.label]);
      expect(ticks).toEqual(c.ticks[i]);
    }
  });
});

describe.each(GOLDENS.shared.map((c, i) => [i, c] as const))("a shared scale, %i", (_, c) => {
  const frames = c.maps.map(({ codes, low, high }) => {
    const [height, width] = c.shape;
    const { signed } = c;
    const raw = { generation: 1, index: 0, final: true, height, width, low, high, signed };
    return decodeFrame({ ...raw, codes: bytes(codes) }) as Frame;
  });
  const composer = new Composer();
  const pooled = frames.map((frame) => ({
    cumulative: cumulate(histogram(frame.codes, frame.signed)),
    high: frame.high,
  }));

  it("has the same ends and limits", () => {
    expect(composer.pooled(frames[0])).toEqual(pooled[0]);
    expect(sharedEnds(pooled, c.signed, c.clip)).toEqual(c.ends);
    frames.forEach((frame, i) => {
      limitsOf(frame, c.ends).forEach((limit, k) => {
        expect(limit).toBe(c.limits[i][k]);
      });
    });
  });

  it("has the same difference", () => {
    const found = difference(frames[0], frames.at(-1) as Frame, c.units) as Frame;
    expect([found.low, found.high]).toEqual([c.difference.low, c.difference.high]);
    expect(new Uint8Array(found.codes.buffer)).toEqual(bytes(c.difference.codes));
    expect(found.signed).toBe(true);
  });
});

it("subtracts nothing of another size", () => {
  const one = { generation: 1, index: 0, final: true, low: 0, high: 1, signed: false };
  const a = { ...one, height: 1, width: 2, codes: Uint16Array.of(0, 65534) };
  expect(difference(a, { ...one, height: 2, width: 1, codes: a.codes })).toBeNull();
});

it("writes numbers the same way", () => {
  expect(GOLDENS.numbers.map(([value]) => [value, formatNumber(value)])).toEqual(GOLDENS.numbers);
});

it("knows the blend choices in the same order", () => {
  expect([...BLENDS]).toEqual(GOLDENS.blends);
});
