// Planes through a volume: their shapes, the voxels in them, and the color scale that they share with the volume.

import type { Limits } from "./clip.ts";
import { type Raster, ZERO } from "./frame.ts";
import type { Mask, Spot } from "./mask.ts";

/** Depth, height and width, or an index along each. */
export type Triple = readonly [number, number, number];

/** The axis that a plane cuts, and the axes of its rows and columns. */
export interface Plane {
  readonly cut: 0 | 1 | 2;
  readonly rows: 0 | 1 | 2;
  readonly columns: 0 | 1 | 2;
}

export const PLANES: readonly Plane[] = [
  { cut: 0, rows: 1, columns: 2 },
  { cut: 1, rows: 0, columns: 2 },
  { cut: 2, rows: 0, columns: 1 },
];

export function rasterOf(plane: Plane, size: Triple): Raster {
  return { width: size[plane.columns], height: size[plane.rows] };
}

/** The parts of a row in which planes follow each other, and what follows them; null if the row is too short. */
export function unpack<T extends Uint16Array | Uint8Array>(
  row: T,
  planes: readonly Plane[],
  size: Triple,
  channels = 1,
): { parts: T[]; rest: T } | null {
  const parts: T[] = [];
  let start = 0;
  for (const plane of planes) {
    const { width, height } = rasterOf(plane, size);
    const end = start + channels * width * height;
    parts.push(row.subarray(start, end) as T);
    start = end;
  }
  return start > row.length ? null : { parts, rest: row.subarray(start) as T };
}

/** The planes through a voxel, copied from a row of all voxels, and what follows those; null if the row is too short. */
export function cut<T extends Uint16Array | Uint8Array>(
  row: T,
  planes: readonly Plane[],
  size: Triple,
  at: Triple,
  channels = 1,
): { parts: T[]; rest: T } | null {
  const strides = [size[1] * size[2] * channels, size[2] * channels, channels];
  const end = size[0] * strides[0];
  if (end > row.length) return null;
  const parts = planes.map((plane) => {
    const { width, height } = rasterOf(plane, size);
    const part = row.slice(0, channels * width * height) as T;
    let k = 0;
    for (let y = 0; y < height; y++) {
      let from = at[plane.cut] * strides[plane.cut] + y * strides[plane.rows];
      for (let x = 0; x < width; x++, from += strides[plane.columns])
        for (let channel = 0; channel < channels; channel++) part[k++] = row[from + channel];
    }
    return part;
  });
  return { parts, rest: row.subarray(end) as T };
}

/** The voxel at a pixel of a plane, which cuts its axis at that of `at`. */
export function voxelAt(plane: Plane, { x, y }: Spot, at: Triple): Triple {
  const voxel: [number, number, number] = [...at];
  voxel[plane.rows] = y;
  voxel[plane.columns] = x;
  return voxel;
}

/** A voxel moved along an axis, within the volume. */
export function moved(at: Triple, axis: 0 | 1 | 2, steps: number, size: Triple): Triple {
  const voxel: [number, number, number] = [...at];
  voxel[axis] = Math.min(size[axis] - 1, Math.max(0, at[axis] + steps));
  return voxel;
}

export function same(a: Triple | null, b: Triple | null): boolean {
  return a === b || (!!a && !!b && a.every((value, axis) => value === b[axis]));
}

/** The magnitude of a code, or of each in the table of levels that follows the planes. */
function levelOf(code: number, signed: boolean): number {
  return signed ? Math.abs(code - ZERO) : code;
}

/**
 * The ends of the color scale of the whole volume.
 *
 * @param table the code that k of `table.length - 1` parts of the volume's voxels don't exceed, for each k
 */
export function tableLimits(
  table: Uint16Array,
  signed: boolean,
  [low, high]: readonly [number, number],
): Limits {
  const steps = table.length - 1;
  // Rounded up, as ranks are, but not for the rounding error of the product.
  const at = (p: number) => levelOf(table[Math.min(steps, Math.ceil((p / 100) * steps - 1e-9))], signed);
  return [at(low), at(high)];
}

/** The share of the volume's voxels whose magnitude is below that of a code, in steps of the table. */
export function shareBelow(table: Uint16Array, code: number, signed: boolean): number {
  const level = levelOf(code, signed);
  let low = 0;
  let high = table.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (levelOf(table[middle], signed) < level) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1) / (table.length - 1);
}

/** A box in a volume: its first and its last voxel. */
export type Box = readonly [Triple, Triple];

/**
 * A box from a rectangle in a plane. Along the axis that the plane cuts, it has the extent of the box before, if the
 * plane cuts that, and otherwise a thickness around the plane.
 */
export function boxOf(
  plane: Plane,
  [from, to]: readonly [Spot, Spot],
  at: Triple,
  size: Triple,
  thickness: number,
  before: Box | null,
): Box {
  const low: [number, number, number] = [...at];
  const high: [number, number, number] = [...at];
  low[plane.rows] = Math.min(from.y, to.y);
  high[plane.rows] = Math.max(from.y, to.y);
  low[plane.columns] = Math.min(from.x, to.x);
  high[plane.columns] = Math.max(from.x, to.x);
  const { cut } = plane;
  if (before && at[cut] >= before[0][cut] && at[cut] <= before[1][cut]) {
    low[cut] = before[0][cut];
    high[cut] = before[1][cut];
  } else {
    const depth = Math.min(thickness, size[cut]);
    low[cut] = Math.min(size[cut] - depth, Math.max(0, at[cut] - (depth >> 1)));
    high[cut] = low[cut] + depth - 1;
  }
  return [low, high];
}

/** Mark a box in the mask of a volume, whose slices lie below each other. */
export function markBox(mask: Mask, [low, high]: Box, size: Triple): void {
  for (let d = low[0]; d <= high[0]; d++) {
    mask.box({ x: low[2], y: d * size[1] + low[1] }, { x: high[2], y: d * size[1] + high[1] }, true);
  }
}

/** Copy the part of a volume's mask that lies in a plane. */
export function cutMask(mask: Mask, plane: Plane, at: Triple, size: Triple, out: Mask): void {
  out.clear();
  for (let y = 0; y < out.height; y++) {
    for (let x = 0; x < out.width; x++) {
      const [d, h, w] = voxelAt(plane, { x, y }, at);
      if (mask.has(w, d * size[1] + h)) out.box({ x, y }, { x, y }, true);
    }
  }
}

/** RGBA of gray or of colors. */
export function colored(bytes: Uint8Array, channels: number): Uint8ClampedArray<ArrayBuffer> {
  const data = new Uint8ClampedArray((4 * bytes.length) / channels).fill(255);
  const green = channels === 3 ? 1 : 0;
  for (let i = 0, k = 0; k < bytes.length; i += 4, k += channels) {
    data[i] = bytes[k];
    data[i + 1] = bytes[k + green];
    data[i + 2] = bytes[k + 2 * green];
  }
  return data;
}
