// The marked pixels of an image. Coordinates are in pixels; the center of the first pixel is at 0.

export interface Spot {
  x: number;
  y: number;
}

const UNDOS = 64;
const STRIPE = 8;

export class Mask {
  #bits: Uint8Array;
  #past: Uint8Array[] = [];

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.#bits = new Uint8Array(width * height);
  }

  /** The number of marked pixels. */
  get count(): number {
    let count = 0;
    for (const bit of this.#bits) count += bit;
    return count;
  }

  get undoable(): boolean {
    return this.#past.length > 0;
  }

  has(x: number, y: number): boolean {
    return this.#bits[y * this.width + x] === 1;
  }

  /** Take a snapshot of the marked pixels, to which one undo returns. */
  snapshot(): void {
    this.#past.push(this.#bits.slice());
    if (this.#past.length > UNDOS) this.#past.shift();
  }

  /** Restore the last snapshot without removing it, so that a box being dragged replaces the previous one. */
  restore(): void {
    const last = this.#past.at(-1);
    if (last) this.#bits.set(last);
  }

  undo(): void {
    const last = this.#past.pop();
    if (last) this.#bits = last;
  }

  /** Draw a round brush along a line; the pixels at both ends always count. */
  stroke(from: Spot, to: Spot, diameter: number, marked: boolean): void {
    const reach = diameter / 2;
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length = dx * dx + dy * dy;
    this.#each(
      { x: Math.min(from.x, to.x) - reach, y: Math.min(from.y, to.y) - reach },
      { x: Math.max(from.x, to.x) + reach, y: Math.max(from.y, to.y) + reach },
      (x, y) => {
        const along = length > 0 ? ((x - from.x) * dx + (y - from.y) * dy) / length : 0;
        const t = Math.min(1, Math.max(0, along));
        const [ex, ey] = [x - from.x - t * dx, y - from.y - t * dy];
        return ex * ex + ey * ey <= reach * reach;
      },
      marked,
    );
    for (const { x, y } of [from, to]) this.#set(Math.round(x), Math.round(y), marked);
  }

  /** Draw a rectangle between two pixels, both included. */
  box(a: Spot, b: Spot, marked: boolean): void {
    this.#each(
      { x: Math.min(a.x, b.x), y: Math.min(a.y, b.y) },
      { x: Math.max(a.x, b.x), y: Math.max(a.y, b.y) },
      () => true,
      marked,
    );
  }

  /** Whether each column of a row has a marked pixel, or is a part of one: see `edgesOf` in decimate.ts. */
  columns(row: number, edges: Int32Array): Uint8Array {
    const marked = new Uint8Array(edges.length - 1);
    const first = row * this.width;
    for (let i = 0; i < marked.length; i++) {
      const from = edges[i] < edges[i + 1] ? edges[i] : Math.max(0, edges[i] - 1);
      const end = Math.max(from + 1, edges[i + 1]);
      for (let k = from; k < end && !marked[i]; k++) marked[i] = this.#bits[first + k] ?? 0;
    }
    return marked;
  }

  clear(): void {
    this.#bits.fill(0);
  }

  invert(): void {
    for (let i = 0; i < this.#bits.length; i++) this.#bits[i] = this.#bits[i] ? 0 : 1;
  }

  /** Pack eight pixels per byte, the first in the highest bit, as numpy.packbits does. */
  pack(): Uint8Array {
    const packed = new Uint8Array((this.#bits.length + 7) >> 3);
    this.#bits.forEach((bit, i) => {
      if (bit) packed[i >> 3]! |= 0x80 >> (i & 7);
    });
    return packed;
  }

  /** Load packed pixels; returns false if the size differs. */
  load(packed: Uint8Array): boolean {
    if (packed.length !== (this.#bits.length + 7) >> 3) return false;
    for (let i = 0; i < this.#bits.length; i++) this.#bits[i] = (packed[i >> 3]! >> (7 - (i & 7))) & 1;
    return true;
  }

  /** An RGBA layer of `scale` times the image's size, with stripes and an edge that are visible on any image. */
  overlay(scale = 1): Uint8ClampedArray<ArrayBuffer> {
    const [width, height] = [this.width * scale, this.height * scale];
    const data = new Uint8ClampedArray(4 * width * height);
    const marked = (x: number, y: number) =>
      x >= 0 && y >= 0 && x < width && y < height && this.has(Math.floor(x / scale), Math.floor(y / scale));
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (!marked(x, y)) continue;
        const edge = !marked(x - 1, y) || !marked(x + 1, y) || !marked(x, y - 1) || !marked(x, y + 1);
        const light = (x + y) % STRIPE < STRIPE / 2;
        const i = 4 * (y * width + x);
        data.fill(light ? 255 : 0, i, i + 3);
        data[i + 3] = edge ? 255 : light ? 96 : 72;
      }
    }
    return data;
  }

  #each(low: Spot, high: Spot, inside: (x: number, y: number) => boolean, marked: boolean): void {
    const [left, top] = [Math.max(0, Math.ceil(low.x)), Math.max(0, Math.ceil(low.y))];
    const [right, bottom] = [
      Math.min(this.width - 1, Math.floor(high.x)),
      Math.min(this.height - 1, Math.floor(high.y)),
    ];
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) if (inside(x, y)) this.#set(x, y, marked);
    }
  }

  #set(x: number, y: number, marked: boolean): void {
    if (x >= 0 && y >= 0 && x < this.width && y < this.height)
      this.#bits[y * this.width + x] = marked ? 1 : 0;
  }
}
