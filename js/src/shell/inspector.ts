// Reads single pixels, by pointer or with a keyboard cursor.

import type { Raster } from "../core/frame.ts";

export interface Pixel {
  x: number;
  y: number;
}

const STEPS: Record<string, readonly [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

export class Inspector {
  #pixel: Pixel | null = null;

  constructor(
    private readonly elements: { readonly canvas: HTMLCanvasElement; readonly cursor: HTMLElement },
    private readonly size: () => Raster | null,
    private readonly changed: () => void,
    life: AbortSignal,
  ) {
    const { canvas } = elements;
    const listen = { signal: life };
    canvas.addEventListener("pointerdown", (e) => this.#point(e), listen);
    canvas.addEventListener("pointermove", (e) => this.#point(e), listen);
    canvas.addEventListener("pointerleave", () => this.#move(null, false), listen);
    canvas.addEventListener("keydown", (e) => this.#key(e), listen);
  }

  /** The pixel being read, clamped to the current image. */
  get pixel(): Pixel | null {
    const size = this.size();
    if (!this.#pixel || !size) return null;
    return inside(this.#pixel, size);
  }

  #point(event: PointerEvent): void {
    const size = this.size();
    const box = this.elements.canvas.getBoundingClientRect();
    if (!size || !box.width || !box.height) return;
    const x = Math.floor(((event.clientX - box.left) / box.width) * size.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * size.height);
    // A finger hides the pixel it points at, so show the cursor.
    this.#move(inside({ x, y }, size), event.pointerType === "touch");
  }

  #key(event: KeyboardEvent): void {
    const size = this.size();
    if (!size || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = STEPS[event.key];
    if (step) {
      const from = this.#pixel;
      const far = event.shiftKey ? 10 : 1;
      const to = from
        ? { x: from.x + far * step[0], y: from.y + far * step[1] }
        : { x: Math.floor(size.width / 2), y: Math.floor(size.height / 2) };
      this.#move(inside(to, size), true);
    } else if (event.key === "Escape" && this.#pixel) {
      this.#move(null, false);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  #move(pixel: Pixel | null, marked: boolean): void {
    this.#pixel = pixel;
    const { cursor } = this.elements;
    const size = this.size();
    cursor.hidden = !(pixel && size && marked);
    if (pixel && size) {
      cursor.style.left = `${((pixel.x + 0.5) / size.width) * 100}%`;
      cursor.style.top = `${((pixel.y + 0.5) / size.height) * 100}%`;
      cursor.style.width = `${100 / size.width}%`;
      cursor.style.height = `${100 / size.height}%`;
    }
    this.changed();
  }
}

function inside({ x, y }: Pixel, { width, height }: Raster): Pixel {
  return { x: Math.min(width - 1, Math.max(0, x)), y: Math.min(height - 1, Math.max(0, y)) };
}
