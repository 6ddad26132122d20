// Keeps the kernel's copy of the drawing layers correct.

import type { LiveModel } from "../shell/models.ts";
import { tell } from "../shell/traits.ts";

/**
 * Sends the contents of a canvas to the kernel if the kernel's copy differs.
 *
 * ipycanvas encodes an image for every command, several concurrently, and the browser may finish an older one last.
 * The kernel would then store and save an outdated image, so each of its images is checked, one at a time.
 */
export class Drawings {
  #checking = false;
  #again = false;

  constructor(private readonly layers: () => readonly LiveModel[]) {}

  /** Check after a drawing or an image; with `begun`, skip empty canvases, which may not be drawn yet. */
  async check(begun = false): Promise<void> {
    this.#again = true;
    if (this.#checking) return;
    this.#checking = true;
    for (let first = begun; this.#again; first = false) {
      this.#again = false;
      try {
        for (const layer of this.layers()) await correct(layer, first);
      } catch (error) {
        // The browser refuses to read a canvas with an image of another origin.
        console.debug("[saliency_widgets] the drawing can't be read", error);
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
