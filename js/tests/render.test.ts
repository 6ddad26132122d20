// js/core compared with saliency_widgets.render: all numbers must be identical. The test of each file of core/ lists
// all differences.
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { barColors, barTicks } from "../src/core/bar.ts";
import { blendInto, blendSmall, makeMix } from "../src/core/blend.ts";
import { clipLimits, histogram, type Limits, strength, totalMagnitude } from "../src/core/clip.ts";
import { Composer } from "../src/core/compose.ts";
import { difference } from "../src/core/difference.ts";
import { type Display, lookOf, NAMES, readDisplay } from "../src/core/display.ts";
import { codeValue, decodeFrame, type Frame, type Pixels } from "../src/core/frame.ts";
import { cumulate, limitsOf, sharedEnds } from "../src/core/scale.ts";
import { formatNumber } from "../src/core/text.ts";

interface Case {
  name: string;
  codes: string;
  shape: [number, number];
  low: number;
  high: number;
  signed: boolean;
  display: Record<string, unknown>;
  limits: Limits;
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
  name: string;
  signed: boolean;
  shape: [number, number];
  clip: [number, number];
  maps: Coded[];
  ends: [number, number];
  limits: Limits[];
  units: [number, number];
  difference: Coded;
}

interface Setting {
  name: string;
  kind: "float" | "range" | "choice";
  low: number;
  high: number;
  options: string[];
}

const GOLDENS = JSON.parse(readFileSync(new URL("goldens.json", import.meta.url), "utf8")) as {
  cases: Case[];
  shared: Shared[];
  numbers: [number, string][];
  settings: Setting[];
  tables: Record<string, string>;
};

const bytes = (text: string) => new Uint8Array(Buffer.from(text, "base64"));
const TABLES = Object.fromEntries(Object.entries(GOLDENS.tables).map(([name, text]) => [name, bytes(text)]));

/** Describes the first number that differs; empty if all are identical, including the signs of zeros. */
function diffs(what: string, actual: ArrayLike<number>, expected: ArrayLike<number>): string[] {
  for (let i = 0; i < Math.max(actual.length, expected.length); i++) {
    if (!Object.is(actual[i], expected[i])) return [`${what} ${i} is ${actual[i]}, not ${expected[i]}`];
  }
  return [];
}

/** The differences of all cases. */
function all<T extends { name: string }>(cases: readonly T[], compare: (one: T) => string[]): string[] {
  return cases.flatMap((one) => compare(one).map((line) => `${one.name}: ${line}`));
}

function frameOf(c: Case): Frame {
  const raw = bytes(c.codes);
  // As received from the kernel: a view at an odd offset of a larger buffer.
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

function displayOf(c: Case): Display {
  const display = readDisplay((name) => c.display[name] ?? TABLES[name]);
  if (!display) throw new Error("the display was not read");
  return display;
}

function rgba(c: Case): Pixels {
  const rgb = bytes(c.image);
  const [height, width] = c.imageShape;
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let i = 0; i < width * height; i++) data.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i);
  return { width, height, data };
}

/** Convert RGB to opaque RGBA. */
function opaque(rgb: Uint8Array): Uint8Array {
  return Uint8Array.from({ length: (rgb.length / 3) * 4 }, (_, i) =>
    i % 4 === 3 ? 255 : rgb[3 * Math.floor(i / 4) + (i % 4)],
  );
}

const CASES = GOLDENS.cases.map((c) => ({
  ...c,
  frame: frameOf(c),
  settings: displayOf(c),
  pixels: rgba(c),
  expected: opaque(bytes(c.blended)),
}));

it("the reference has many cases", () => {
  expect(CASES.length).toBeGreaterThan(300);
  expect(GOLDENS.shared.length).toBeGreaterThan(30);
});

it("display.ts: the same settings, ranges and choices as in Python", () => {
  expect(NAMES).toEqual(GOLDENS.settings.map(({ name }) => name));
  for (const { name, kind, low, high, options } of GOLDENS.settings) {
    const read = (value: unknown) =>
      (
        readDisplay((trait) => (trait === name ? value : TABLES[trait])) as unknown as Record<string, unknown>
      )[name];
    if (kind === "float") expect([read(-1e9), read(1e9)], name).toEqual([low, high]);
    if (kind === "range") expect(read([-1e9, 1e9]), name).toEqual([low, high]);
    if (kind === "choice" && `${name}_luts` in TABLES) {
      expect(TABLES[`${name}_luts`].length, name).toBe(768 * options.length);
      expect(read(1), name).toEqual(TABLES[`${name}_luts`].slice(768, 2 * 768));
      expect(read(1), name).toBe(read(1));
    } else if (kind === "choice") {
      expect(
        options.map((_, index) => read(index)),
        name,
      ).toEqual(options);
      expect(read(options.length), name).toBe(options[0]);
    }
  }
  expect(readDisplay(() => undefined)).toBeNull();
});

it("frame.ts: the same values", () => {
  const differ = all(CASES, ({ frame, values }) =>
    diffs(
      "value",
      Array.from(frame.codes, (code) => codeValue(frame, code)),
      values,
    ),
  );
  expect(differ).toEqual([]);
});

it("clip.ts: the same limits, strength and shares", () => {
  const differ = all(CASES, (c) => {
    const { codes, signed } = c.frame;
    const counts = histogram(codes, signed);
    const limits = clipLimits(counts, codes.length, c.settings.clip);
    const total = totalMagnitude(counts, c.frame);
    const shares = Array.from(codes, (code) => (total > 0 ? Math.abs(codeValue(c.frame, code)) / total : 0));
    // Python and JavaScript add the same numbers in different orders.
    const near = shares.map((share, i) =>
      Math.abs(share - c.shares[i]) <= 1e-9 * c.shares[i] ? c.shares[i] : share,
    );
    return [
      ...diffs("limit", limits, c.limits),
      ...diffs(
        "strength",
        Array.from(codes, (code) => strength(code, signed, limits)),
        c.strength,
      ),
      ...diffs("share", near, c.shares),
    ];
  });
  expect(differ).toEqual([]);
});

it("blend.ts: the same pixels, with and without a table of all codes", () => {
  const differ = all(CASES, (c) => {
    const look = lookOf(c.settings, c.signed);
    const [large, small] = [0, 0].map(() => new Uint8ClampedArray(c.pixels.data.length));
    blendInto(large, c.pixels, c.frame, makeMix(c.signed, c.limits, look));
    blendSmall(small, c.pixels, c.frame, c.limits, look);
    return [...diffs("byte", large, c.expected), ...diffs("byte of the small one", small, c.expected)];
  });
  expect(differ).toEqual([]);
});

it("compose.ts: the same pixels, computed once", () => {
  const differ = all(CASES, (c) => {
    const composer = new Composer();
    const pixels = composer.blend(c.frame, c.pixels, c.settings);
    const again = composer.blend(c.frame, c.pixels, { ...c.settings });
    return [...diffs("byte", pixels.data, c.expected), ...(again === pixels ? [] : ["was computed again"])];
  });
  expect(differ).toEqual([]);
});

it("bar.ts: the same color bar", () => {
  const differ = all(CASES, (c) => {
    const row = barColors(c.signed, c.limits, lookOf(c.settings, c.signed));
    const ticks = [3, 5].map((count) => barTicks(c.frame, c.limits, count));
    return [
      ...diffs("byte", row, bytes(c.bar)),
      ...ticks.flatMap((labels, i) => [
        ...diffs(
          "position",
          labels.map((tick) => tick.position),
          c.ticks[i].map(([position]) => position),
        ),
        ...diffs(
          "tick",
          labels.map((tick) => tick.value),
          c.ticks[i].map(([, value]) => value),
        ),
        ...(labels.map((tick) => tick.label).join("|") === c.ticks[i].map(([, , label]) => label).join("|")
          ? []
          : [`labels ${labels.map((tick) => tick.label)}`]),
      ]),
    ];
  });
  expect(differ).toEqual([]);
});

const SHARED = GOLDENS.shared.map((c, i) => ({
  ...c,
  name: `shared scale ${i}`,
  frames: c.maps.map(({ codes, low, high }) => {
    const [height, width] = c.shape;
    const raw = { generation: 1, index: 0, final: true, height, width, low, high, signed: c.signed };
    return decodeFrame({ ...raw, codes: bytes(codes) }) as Frame;
  }),
}));

it("scale.ts: the same ends and limits of a shared scale", () => {
  const differ = all(SHARED, ({ frames, signed, clip, ends, limits }) => {
    const pooled = frames.map((frame) => ({
      cumulative: cumulate(histogram(frame.codes, frame.signed)),
      high: frame.high,
    }));
    const composed = new Composer().pooled(frames[0]);
    return [
      ...diffs("pooled", composed.cumulative, pooled[0].cumulative),
      ...diffs("pooled high", [composed.high], [pooled[0].high]),
      ...diffs("end", sharedEnds(pooled, signed, clip), ends),
      ...frames.flatMap((frame, i) => diffs(`limit of map ${i}`, limitsOf(frame, ends), limits[i])),
    ];
  });
  expect(differ).toEqual([]);
});

it("difference.ts: the same difference", () => {
  const differ = all(SHARED, ({ frames, units, difference: expected }) => {
    const { low, high, codes, signed } = difference(frames[0], frames.at(-1) as Frame, units) as Frame;
    return [
      ...diffs("end", [low, high], [expected.low, expected.high]),
      ...diffs("byte", new Uint8Array(codes.buffer), bytes(expected.codes)),
      ...(signed ? [] : ["is not signed"]),
    ];
  });
  expect(differ).toEqual([]);
});

it("difference.ts: maps of different sizes have no difference", () => {
  const one = { generation: 1, index: 0, final: true, low: 0, high: 1, signed: false };
  const a = { ...one, height: 1, width: 2, codes: Uint16Array.of(0, 65534) };
  expect(difference(a, { ...one, height: 2, width: 1, codes: a.codes })).toBeNull();
});

it("text.ts: the same texts of numbers", () => {
  expect(GOLDENS.numbers.map(([value]) => [value, formatNumber(value)])).toEqual(GOLDENS.numbers);
});
