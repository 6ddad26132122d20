// Draws pixels on the visible canvas, sharp at every size, with the drawing layers on top.

import type { Pixels } from "../core/frame.ts";

export class Stage {
  readonly #context: CanvasRenderingContext2D | null;
  readonly #buffer = document.createElement("canvas");
  #shown: Pixels | null = null;

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.#context = canvas.getContext("2d");
  }

  /** Draw the pixels; returns false if the canvas has no size, as in a closed tab of the page. */
  draw(pixels: Pixels, layers: Iterable<HTMLCanvasElement>): boolean {
    const context = this.#context;
    const box = this.canvas.getBoundingClientRect();
    const width = Math.round(box.width * devicePixelRatio);
    const height = Math.round(box.height * devicePixelRatio);
    if (!context || width < 1 || height < 1) return false;
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;

    this.#load(pixels);
    context.imageSmoothingEnabled = width < pixels.width;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#buffer, 0, 0, width, height);
    context.imageSmoothingEnabled = true;
    for (const layer of layers) {
      if (layer.width > 0 && layer.height > 0) context.drawImage(layer, 0, 0, width, height);
    }
    return true;
  }

  #load(pixels: Pixels): void {
    if (this.#shown === pixels) return;
    const buffer = this.#buffer;
    if (buffer.width !== pixels.width) buffer.width = pixels.width;
    if (buffer.height !== pixels.height) buffer.height = pixels.height;
    const image = new ImageData(pixels.data, pixels.width, pixels.height);
    buffer.getContext("2d")?.putImageData(image, 0, 0);
    this.#shown = pixels;
  }
}

/** Call back when the canvas's size on the page or the screen's resolution changes. */
export function watchSize(canvas: HTMLElement, callback: () => void, life: AbortSignal): void {
  const observer = new ResizeObserver(callback);
  observer.observe(canvas);
  life.addEventListener("abort", () => observer.disconnect());

  const watchResolution = () => {
    const query = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);
    const changed = () => {
      callback();
      watchResolution();
    };
    query.addEventListener("change", changed, { once: true, signal: life });
  };
  watchResolution();
}
