// One plane of a volume: its pixels with the map over them, the lines of the other planes, and a slider.

import type { Limits } from "../core/clip.ts";
import { Composer } from "../core/compose.ts";
import type { Display } from "../core/display.ts";
import type { Frame, Pixels } from "../core/frame.ts";
import type { Spot } from "../core/mask.ts";
import { type Plane, rasterOf, type Triple } from "../core/planes.ts";
import { make, setText } from "../shell/elements.ts";
import { Stage } from "../shell/stage.ts";

export class PlaneView {
  readonly canvas: HTMLCanvasElement;
  readonly slider: HTMLInputElement;
  readonly root: HTMLElement;
  readonly #row = make("div", "plane-line sw-across");
  readonly #column = make("div", "plane-line sw-down");
  readonly #cursor = make("div", "cursor", { hidden: "" });
  readonly #position = make("span", "plane-position");
  readonly #composer = new Composer();
  readonly #stage: Stage;

  /**
   * @param name of the plane, such as "axial"
   * @param axis the name of the axis that it cuts
   * @param size of the volume
   * @param fixed whether the plane can't be moved here, as in a cell of a grid
   */
  constructor(
    readonly plane: Plane,
    name: string,
    axis: string,
    private readonly size: Triple,
    fixed: boolean,
  ) {
    this.canvas = make("canvas", "plane-canvas", {
      tabindex: "0",
      role: "img",
      "aria-label": `${name}. The arrow keys read voxels; Page Up and Page Down go to the next ${axis}.`,
    });
    this.slider = make("input", "plane-slider", { type: "range", min: "0", step: "1", "aria-label": axis });
    this.#stage = new Stage(this.canvas);
    this.root = make("figure", "plane", {}, [
      make("figcaption", "plane-name", {}, [make("span", "plane-title", {}, [name]), this.#position]),
      make("div", "plane-stage", {}, [this.canvas, this.#row, this.#column, this.#cursor]),
      ...(fixed ? [] : [this.slider]),
    ]);
    if (fixed) this.canvas.removeAttribute("tabindex");
    const { width, height } = rasterOf(plane, size);
    this.slider.max = String(size[plane.cut] - 1);
    this.root.style.flexGrow = String(width);
    this.root.style.setProperty("--sw-plane-ratio", String(width / height));
    this.canvas.style.aspectRatio = `${width} / ${height}`;
  }

  /** Show the position of the plane, and where the others cut it. */
  move(at: Triple): void {
    const { cut, rows, columns } = this.plane;
    const last = this.size[cut] - 1;
    this.slider.value = String(at[cut]);
    setText(this.#position, `${at[cut]} of ${last}`);
    this.#row.style.top = `${(100 * (at[rows] + 0.5)) / this.size[rows]}%`;
    this.#column.style.left = `${(100 * (at[columns] + 0.5)) / this.size[columns]}%`;
  }

  /** Show the pixel that is read, if another view reports it. */
  point(spot: Spot | null): void {
    this.#cursor.hidden = !spot;
    if (!spot) return;
    const { width, height } = rasterOf(this.plane, this.size);
    this.#cursor.style.left = `${(100 * (spot.x + 0.5)) / width}%`;
    this.#cursor.style.top = `${(100 * (spot.y + 0.5)) / height}%`;
  }

  /** Draw the pixels, with a map over them if there is one; false if the plane isn't visible. */
  draw(
    pixels: Pixels,
    map: { frame: Frame; display: Display; limits: Limits } | null,
    layer: HTMLCanvasElement | null,
  ): boolean {
    const shown = map ? this.#composer.blend(map.frame, pixels, map.display, map.limits) : pixels;
    return this.#stage.draw(shown, layer ? [layer] : []);
  }

  /** The pixel at a pointer, within the plane. */
  spotAt(event: MouseEvent): Spot {
    const box = this.canvas.getBoundingClientRect();
    const { width, height } = rasterOf(this.plane, this.size);
    const x = Math.floor(((event.clientX - box.left) / box.width) * width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * height);
    return { x: Math.min(width - 1, Math.max(0, x)), y: Math.min(height - 1, Math.max(0, y)) };
  }
}
