import { expect, it } from "vitest";
import { decimate, edgesOf, roundTicks, strongest } from "../src/core/decimate.ts";
import { ZERO } from "../src/core/frame.ts";
import { ViewRange } from "../src/core/view-range.ts";

/** Reproducible numbers from 0 to 1. */
function numbers(count: number, seed = 1): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  });
}

const VIEWS: [from: number, to: number, columns: number, samples: number][] = [
  [0, 1000, 100, 1000],
  [0, 1000, 333, 1000],
  [12.25, 907.75, 77, 1000],
  [0, 40, 320, 1000],
  [990.5, 1000, 64, 1000],
  [0, 1, 5, 1],
];

it.each(VIEWS)("gives each sample from %f to %f to one of %i columns", (from, to, columns, samples) => {
  const edges = edgesOf(from, to, columns, samples);
  expect(edges.length).toBe(columns + 1);
  expect([edges[0], edges[columns]]).toEqual([Math.ceil(from), Math.ceil(to)]);
  for (let i = 0; i < columns; i++) expect(edges[i + 1]).toBeGreaterThanOrEqual(edges[i]);
});

it.each(VIEWS)("keeps every extreme from %f to %f in %i columns", (from, to, columns, samples) => {
  const lanes = 3;
  const values = Float32Array.from(numbers(lanes * samples), (x) => x - 0.5);
  const edges = edgesOf(from, to, columns, samples);
  for (let lane = 0; lane < lanes; lane++) {
    const ends = decimate(values, lane * samples, edges);
    for (let i = 0; i < columns; i++) {
      const inside = values.subarray(lane * samples + edges[i], lane * samples + edges[i + 1]);
      if (!inside.length) continue;
      expect([ends[2 * i], ends[2 * i + 1]]).toEqual([Math.min(...inside), Math.max(...inside)]);
    }
    const shown = values.subarray(lane * samples + edges[0], lane * samples + edges[columns]);
    const filled = [...Array(columns).keys()].filter((i) => edges[i + 1] > edges[i]);
    expect(Math.max(...filled.map((i) => ends[2 * i + 1]))).toBe(Math.max(...shown));
    expect(Math.min(...filled.map((i) => ends[2 * i]))).toBe(Math.min(...shown));
  }
});

it("draws on where a column has no sample", () => {
  const ends = decimate(Float32Array.of(1, 2), 0, Int32Array.of(0, 1, 1, 2));
  expect([...ends]).toEqual([1, 1, 1, 1, 2, 2]);
});

it.each([true, false])("keeps the strongest code of each column (signed: %s)", (signed) => {
  const samples = 500;
  const codes = Uint16Array.from(numbers(2 * samples, 7), (x) => Math.floor(65535 * x));
  const edges = edgesOf(3.5, 480, 41, samples);
  const out = new Uint16Array(2 * 41);
  for (const lane of [0, 1]) strongest(codes, lane * samples, edges, signed, out, lane * 41);
  const size = (code: number) => (signed ? Math.abs(code - ZERO) : code);
  for (const lane of [0, 1]) {
    for (let i = 0; i < 41; i++) {
      const inside = [...codes.subarray(lane * samples + edges[i], lane * samples + edges[i + 1])];
      expect(size(out[lane * 41 + i])).toBe(Math.max(...inside.map(size)));
      expect(inside).toContain(out[lane * 41 + i]);
    }
  }
});

it("repeats the code of a sample that is wider than a column", () => {
  const codes = Uint16Array.of(10, 20, 30);
  const out = new Uint16Array(6);
  strongest(codes, 0, edgesOf(0, 3, 6, 3), false, out, 0);
  expect([...new Set(out)]).toEqual([10, 20, 30]);
  expect([...out].sort()).toEqual([...out]);
});

it.each<[number, number, number, number[], number]>([
  [0, 10, 5, [0, 2, 4, 6, 8, 10], 0],
  [0.13, 0.92, 4, [0.2, 0.4, 0.6, 0.8], 1],
  [0, 6, 8, [0, 1, 2, 3, 4, 5, 6], 0],
  [1234, 1236, 4, [1234, 1234.5, 1235, 1235.5, 1236], 1],
  [3, 3, 4, [], 0],
])("puts round numbers between %f and %f", (from, to, count, expected, decimals) => {
  const { ticks, decimals: digits } = roundTicks(from, to, count);
  expect(ticks.length).toBe(expected.length);
  ticks.forEach((tick, i) => {
    expect(tick).toBeCloseTo(expected[i], 9);
  });
  expect(digits).toBe(decimals);
});

it("zooms around a sample and stays within the signal", () => {
  const view = new ViewRange(1000);
  view.zoom(4, 600);
  expect([view.from, view.to]).toEqual([450, 700]);
  view.zoom(2, 450);
  expect([view.from, view.to]).toEqual([450, 575]);
  view.move(-1000);
  expect([view.from, view.to]).toEqual([0, 125]);
  view.reveal(200);
  expect([view.from, view.to]).toEqual([76, 201]);
  view.reveal(10);
  expect([view.from, view.to]).toEqual([10, 135]);
  view.zoom(1e9, 20);
  expect(view.span).toBe(8);
  view.zoom(1e-9, 20);
  expect([view.from, view.to, view.whole]).toEqual([0, 1000, true]);
  view.zoom(2, 0);
  view.reset();
  expect(view.whole).toBe(true);
});
