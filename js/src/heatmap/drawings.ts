// Keeps the kernel's copy of the drawing layers right.

import type { LiveModel } from "../shell/models.ts";
import { tell } from "../shell/traits.ts";

/**
 * Sends the kernel what a canvas shows, where it has something else.
 *
 * ipycanvas encodes an image for every command, several at a time, and the browser may finish an older one last:
 * the kernel would keep, and save, what is no longer on the page. So each of its images is checked, one at a time.
 */
export class Drawings {
  #checking = false;
  #again = false;

  constructor(private readonly layers: () => readonly LiveModel[]) {}

  /** Called when something was drawn or sent; `begun`: perhaps nothing yet, so an empty canvas is not sent. */
  async check(begun = false): Promise<void> {
    this.#again = true;
    if (this.#checking) return;
    this.#checking = true;
    for (let first = begun; this.#again; first = false) {
      this.#again = false;
      try {
        for (const layer of this.layers()) await correct(layer, first);
      } catch (error) {
        // An image from elsewhere on the canvas: the browser refuses to read it.
        console.debug("[saliency_widgets] what is drawn can't be read", error);
      }
    }
    this.#checking = false;
  }
}

async function correct(layer: LiveModel, begun: boolean): Promise<void> {
  const { canvas } = layer;
  if (!canvas || !layer.get("sync_image_data") || (begun && isEmpty(canvas))) return;
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done));
  if (!blob) return;
  const drawn = new Uint8ClampedArray(await blob.arrayBuffer());
  const sent = layer.get("image_data") as Uint8ClampedArray | null;
  if (sent?.length === drawn.length && sent.every((byte, i) => byte === drawn[i])) return;
  layer.set?.("image_data", drawn);
  tell(() => layer.save_changes?.());
}

function isEmpty(canvas: HTMLCanvasElement): boolean {
  const { width, height } = canvas;
  const pixels =
    width && height ? canvas.getContext("2d")?.getImageData(0, 0, width, height).data : undefined;
  return !pixels?.some((part) => part > 0);
}
