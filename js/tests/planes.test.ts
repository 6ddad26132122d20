import { expect, it } from "vitest";
import { ZERO } from "../src/core/frame.ts";
import { Mask } from "../src/core/mask.ts";
import {
  type Box,
  boxOf,
  cut,
  cutMask,
  markBox,
  moved,
  PLANES,
  rasterOf,
  shareBelow,
  type Triple,
  tableLimits,
  unpack,
  voxelAt,
} from "../src/core/planes.ts";

const SIZE: Triple = [3, 4, 5];
const AT: Triple = [1, 2, 3];

/** A number that names its voxel. */
const code = ([d, h, w]: Triple) => 100 * d + 10 * h + w;

it("unpacks planes whose pixels are the voxels that voxelAt names", () => {
  const row: number[] = [];
  for (const plane of PLANES) {
    const { width, height } = rasterOf(plane, SIZE);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) row.push(code(voxelAt(plane, { x, y }, AT)));
  }
  const { parts, rest } = unpack(new Uint16Array([...row, 7, 8]), PLANES, SIZE) ?? { parts: [], rest: [] };
  expect(parts.map((part) => part.length)).toEqual([4 * 5, 3 * 5, 3 * 4]);
  expect([...rest]).toEqual([7, 8]);
  // All three planes contain the voxel in which they meet.
  expect([parts[0][2 * 5 + 3], parts[1][1 * 5 + 3], parts[2][1 * 4 + 2]]).toEqual([123, 123, 123]);
  expect(unpack(new Uint16Array(46), PLANES, SIZE)).toBeNull();
  expect(unpack(new Uint8Array(3 * 20), PLANES.slice(0, 1), SIZE, 3)?.parts[0].length).toBe(60);
});

it("cuts the same planes from the whole volume", () => {
  const voxels: Triple[] = [];
  for (let d = 0; d < SIZE[0]; d++)
    for (let h = 0; h < SIZE[1]; h++) for (let w = 0; w < SIZE[2]; w++) voxels.push([d, h, w]);
  const expected = (plane: (typeof PLANES)[number]) => {
    const { width, height } = rasterOf(plane, SIZE);
    return Array.from({ length: width * height }, (_, i) =>
      code(voxelAt(plane, { x: i % width, y: Math.floor(i / width) }, AT)),
    );
  };
  const whole = cut(new Uint16Array([...voxels.map(code), 7, 8]), PLANES, SIZE, AT);
  expect(whole?.parts.map((part) => [...part])).toEqual(PLANES.map(expected));
  expect([...(whole?.rest ?? [])]).toEqual([7, 8]);
  const colors = new Uint8Array(voxels.flat());
  const colored = cut(colors, PLANES.slice(1), SIZE, AT, 3)?.parts.map((part) => [...part]);
  const digits = (name: number) => [Math.floor(name / 100), Math.floor(name / 10) % 10, name % 10];
  expect(colored).toEqual(PLANES.slice(1).map((plane) => expected(plane).flatMap(digits)));
  expect(cut(new Uint16Array(59), PLANES, SIZE, AT)).toBeNull();
});

it("moves within the volume", () => {
  expect(moved(AT, 0, 1, SIZE)).toEqual([2, 2, 3]);
  expect(moved(AT, 0, 9, SIZE)).toEqual([2, 2, 3]);
  expect(moved(AT, 2, -9, SIZE)).toEqual([1, 2, 0]);
});

it("reads limits and shares from the table of levels", () => {
  const table = Uint16Array.from({ length: 1001 }, (_, k) => 10 * k);
  expect(tableLimits(table, false, [0, 99])).toEqual([0, 9900]);
  expect(tableLimits(table, false, [0.1, 100])).toEqual([10, 10000]);
  expect(shareBelow(table, 0, false)).toBe(0);
  expect(shareBelow(table, 5005, false)).toBeCloseTo(0.5, 12);
  const signed = table.map((level) => ZERO + level);
  expect(tableLimits(signed, true, [0, 50])).toEqual([0, 5000]);
  expect(shareBelow(signed, ZERO - 5005, true)).toBe(shareBelow(signed, ZERO + 5005, true));
});

it("makes a box from rectangles in two planes", () => {
  const drag = [
    { x: 4, y: 2 },
    { x: 1, y: 1 },
  ] as const;
  const first = boxOf(PLANES[0], drag, AT, SIZE, 1, null);
  expect(first).toEqual([
    [1, 1, 1],
    [1, 2, 4],
  ]);
  // A rectangle in another plane keeps the extent along the axis that this plane cuts.
  const second = boxOf(
    PLANES[1],
    [
      { x: 0, y: 0 },
      { x: 2, y: 2 },
    ],
    AT,
    SIZE,
    1,
    first,
  );
  expect(second).toEqual([
    [0, 1, 0],
    [2, 2, 2],
  ]);
  // A thickness stays within the volume.
  expect(boxOf(PLANES[0], drag, [0, 0, 0], SIZE, 2, null)[0][0]).toBe(0);
  expect(boxOf(PLANES[0], drag, AT, SIZE, 99, null).map((corner) => corner[0])).toEqual([0, 2]);
});

it("marks the voxels of a box, and cuts the mask", () => {
  const box: Box = [
    [1, 1, 2],
    [2, 2, 4],
  ];
  const mask = new Mask(SIZE[2], SIZE[0] * SIZE[1]);
  markBox(mask, box, SIZE);
  expect(mask.count).toBe(2 * 2 * 3);
  for (const plane of PLANES) {
    const { width, height } = rasterOf(plane, SIZE);
    const cut = new Mask(width, height);
    cutMask(mask, plane, AT, SIZE, cut);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const inside = voxelAt(plane, { x, y }, AT).every((v, k) => v >= box[0][k] && v <= box[1][k]);
        expect(cut.has(x, y)).toBe(inside);
      }
    }
  }
});
