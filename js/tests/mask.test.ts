import { describe, expect, it } from "vitest";
import { Mask } from "../src/core/mask.ts";

const rows = (mask: Mask): string[] =>
  Array.from({ length: mask.height }, (_, y) =>
    Array.from({ length: mask.width }, (_, x) => (mask.has(x, y) ? "#" : ".")).join(""),
  );

describe("a mask", () => {
  it("marks a box between two corners in any order, clipped at the edges", () => {
    const mask = new Mask(5, 4);
    mask.box({ x: 3, y: 2 }, { x: 1, y: 1 }, true);
    expect(rows(mask)).toEqual([".....", ".###.", ".###.", "....."]);
    mask.box({ x: 3, y: -9 }, { x: 99, y: 99 }, false);
    expect(rows(mask)).toEqual([".....", ".##..", ".##..", "....."]);
    expect(mask.count).toBe(4);
  });

  it("marks a round brush along a line without gaps", () => {
    const mask = new Mask(9, 5);
    mask.stroke({ x: 2, y: 2 }, { x: 6, y: 2 }, 2, true);
    expect(rows(mask)).toEqual([".........", "..#####..", ".#######.", "..#####..", "........."]);
    mask.stroke({ x: 4, y: 2 }, { x: 4, y: 2 }, 0, false);
    expect(mask.has(4, 2)).toBe(false);
    expect(mask.has(5, 2)).toBe(true);
  });

  it("marks a pixel under the thinnest brush, and none outside the image", () => {
    const mask = new Mask(3, 3);
    mask.stroke({ x: 1.4, y: 0.6 }, { x: 1.4, y: 0.6 }, 0.1, true);
    expect(rows(mask)).toEqual(["...", ".#.", "..."]);
    mask.stroke({ x: -5, y: 7 }, { x: -5, y: 7 }, 1, true);
    expect(mask.count).toBe(1);
  });

  it("undoes step by step, and restores the last snapshot", () => {
    const mask = new Mask(2, 1);
    expect(mask.undoable).toBe(false);
    mask.snapshot();
    mask.box({ x: 0, y: 0 }, { x: 0, y: 0 }, true);
    mask.snapshot();
    mask.invert();
    expect(rows(mask)).toEqual([".#"]);
    mask.restore();
    expect(rows(mask)).toEqual(["#."]);
    mask.clear();
    mask.undo();
    expect(rows(mask)).toEqual(["#."]);
    mask.undo();
    expect(rows(mask)).toEqual([".."]);
    mask.undo();
    expect(mask.undoable).toBe(false);
  });

  it("keeps a limited number of steps", () => {
    const mask = new Mask(1, 1);
    for (let i = 0; i < 1000; i++) mask.snapshot();
    let steps = 0;
    for (; mask.undoable; steps++) mask.undo();
    expect(steps).toBe(64);
  });

  it("is packed as by numpy, and unpacked", () => {
    const mask = new Mask(3, 3);
    for (const [x, y] of [
      [0, 0],
      [2, 0],
      [1, 2],
      [2, 2],
    ] as const)
      mask.box({ x, y }, { x, y }, true);
    // np.packbits([1,0,1, 0,0,0, 0,1,1]) is [0b10100001, 0b10000000].
    expect([...mask.pack()]).toEqual([0b10100001, 0b10000000]);
    const other = new Mask(3, 3);
    expect(other.load(mask.pack())).toBe(true);
    expect(rows(other)).toEqual(rows(mask));
    expect(other.load(new Uint8Array(9))).toBe(false);
  });

  it("has an overlay of only the marked pixels, with an opaque edge", () => {
    const mask = new Mask(16, 16);
    mask.box({ x: 2, y: 2 }, { x: 12, y: 12 }, true);
    const data = mask.overlay();
    const alpha = (x: number, y: number) => data[4 * (16 * y + x) + 3];
    expect(alpha(0, 0)).toBe(0);
    expect(alpha(2, 7)).toBe(255);
    expect(alpha(7, 7)).toBeGreaterThan(0);
    expect(alpha(7, 7)).toBeLessThan(128);
    const inside = new Set<number>();
    for (let y = 3; y < 12; y++) for (let x = 3; x < 12; x++) inside.add(data[4 * (16 * y + x)]!);
    expect(inside).toEqual(new Set([0, 255]));
  });

  it("has an overlay in finer pixels that covers the same area", () => {
    const mask = new Mask(4, 3);
    mask.box({ x: 1, y: 1 }, { x: 2, y: 1 }, true);
    const data = mask.overlay(5);
    expect(data.length).toBe(4 * 20 * 15);
    for (let y = 0; y < 15; y++) {
      for (let x = 0; x < 20; x++) {
        expect(data[4 * (20 * y + x) + 3]! > 0).toBe(mask.has(Math.floor(x / 5), Math.floor(y / 5)));
      }
    }
  });
});

it("reduces a row to columns that are marked if one of their samples is", () => {
  const mask = new Mask(6, 2);
  mask.box({ x: 2, y: 1 }, { x: 3, y: 1 }, true);
  expect([...mask.columns(1, Int32Array.of(0, 2, 4, 6))]).toEqual([0, 1, 0]);
  expect([...mask.columns(1, Int32Array.of(0, 3, 6))]).toEqual([1, 1]);
  expect([...mask.columns(0, Int32Array.of(0, 3, 6))]).toEqual([0, 0]);
  // Two columns for each sample: a column in which none begins shows the one before.
  expect([...mask.columns(1, Int32Array.of(2, 3, 3, 4, 4, 5))]).toEqual([1, 1, 1, 1, 0]);
});
