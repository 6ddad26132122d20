// Marks a box in a volume: by rectangles in its planes, or by two corners.

import { Mask, type Spot } from "../core/mask.ts";
import {
  type Box,
  boxOf,
  cutMask,
  markBox,
  type Plane,
  rasterOf,
  same,
  type Triple,
} from "../core/planes.ts";
import { MarkedRegion } from "../heatmap/marked.ts";
import type { RawRegion } from "../heatmap/region.ts";
import type { SceneHost } from "../heatmap/scene.ts";
import { make, setText } from "../shell/elements.ts";

const FINE = 480;

export class VolumeMarks {
  readonly root: HTMLElement;
  readonly #draw: HTMLButtonElement;
  readonly #move: HTMLButtonElement;
  readonly #thickness = make("input", "thickness", {
    type: "number",
    min: "1",
    "aria-label": "Thickness in slices",
  });
  readonly #region: MarkedRegion;
  readonly #surfaces = new Map<
    Plane,
    { canvas: HTMLCanvasElement; mask: Mask; at: Triple; version: number }
  >();
  #size: Triple = [0, 0, 0];
  #box: Box | null = null;
  #before: Box | null = null;
  #from: { plane: Plane; spot: Spot } | null = null;
  #corner: Triple | null = null;
  #drawing = true;
  #on = false;

  /** @param changed called when the marked region needs to be painted */
  constructor(host: SceneHost, changed: () => void) {
    this.#region = new MarkedRegion(host, changed, (share) => (share < 1 ? 2 : 1));
    const press = (label: string, title: string, act: () => void) => {
      const button = make("button", "tool", { type: "button", title }, [label]);
      button.addEventListener("click", act, { signal: host.life });
      return button;
    };
    this.#draw = press(
      "Box",
      "Drag a rectangle in one plane, then in another; by key: Space at two corners",
      () => this.#choose(true),
    );
    this.#move = press("Move planes", "Drag to move the planes, without marking", () => this.#choose(false));
    this.root = make("div", "volume-marks", { role: "toolbar", "aria-label": "Mark a region", hidden: "" }, [
      make("div", "tools", { role: "group", "aria-label": "Tool" }, [this.#draw, this.#move]),
      make("label", "thickness-label", {}, [this.#thickness, "slices thick"]),
      make("div", "tools", {}, [this.#region.clear]),
      this.#region.words,
    ]);
    this.#choose(true);
  }

  get drawing(): boolean {
    return this.#on && this.#drawing;
  }

  reset(size: Triple): void {
    if (this.#region.mask && same(size, this.#size)) return;
    this.#size = size;
    this.#surfaces.clear();
    this.#box = null;
    this.#thickness.value = String(Math.max(1, Math.round(Math.min(...size) / 4)));
    this.#region.reset(size[2], size[0] * size[1]);
  }

  show(on: boolean): void {
    this.#on = on;
    this.root.hidden = !on;
    this.#from = null;
    this.#corner = null;
    this.#region.touch();
  }

  /** Load a region sent by the kernel. */
  load(region: RawRegion): void {
    if (this.#region.load(region)) this.#box = null;
  }

  /** The marked part of a plane as a layer to draw over it; null if nothing is marked. */
  layer(plane: Plane, at: Triple): HTMLCanvasElement | null {
    const { mask, version } = this.#region;
    if (!this.#on || !mask?.count) return null;
    const raster = rasterOf(plane, this.#size);
    let surface = this.#surfaces.get(plane);
    if (!surface) {
      const canvas = document.createElement("canvas");
      surface = { canvas, mask: new Mask(raster.width, raster.height), at, version: -1 };
      this.#surfaces.set(plane, surface);
    }
    if (surface.version !== version || surface.at[plane.cut] !== at[plane.cut]) {
      surface.version = version;
      surface.at = at;
      cutMask(mask, plane, at, this.#size, surface.mask);
      // Finer than a small plane, so that stripes stay thin when it is enlarged.
      const scale = Math.max(1, Math.round(FINE / Math.max(raster.width, raster.height)));
      const [width, height] = [raster.width * scale, raster.height * scale];
      surface.canvas.width = width;
      surface.canvas.height = height;
      const image = new ImageData(surface.mask.overlay(scale), width, height);
      surface.canvas.getContext("2d")?.putImageData(image, 0, 0);
    }
    return surface.canvas;
  }

  begin(plane: Plane, spot: Spot, at: Triple): void {
    this.#from = { plane, spot };
    this.#before = this.#region.mask?.count ? this.#box : null;
    this.#corner = null;
    this.reach(spot, at);
  }

  /** Extend the box that is being dragged. */
  reach(spot: Spot, at: Triple): void {
    const from = this.#from;
    if (!from) return;
    const thickness = Math.max(1, Math.round(Number(this.#thickness.value)) || 1);
    this.#set(boxOf(from.plane, [from.spot, spot], at, this.#size, thickness, this.#before));
  }

  end(): void {
    if (!this.#from) return;
    this.#from = null;
    this.#region.send();
  }

  /** What a key does; undefined if nothing. */
  key(name: string, at: Triple): (() => void) | undefined {
    return this.#on ? this.#region.key(name, () => this.#mark(at)) : undefined;
  }

  #mark(at: Triple): void {
    const corner = this.#corner;
    if (!corner) {
      this.#corner = at;
      setText(this.#region.words, "One corner is set: press Space at the opposite corner of the box");
      return;
    }
    this.#corner = null;
    const ends = [Math.min, Math.max].map(
      (end) => at.map((value, axis) => end(value, corner[axis])) as unknown as Triple,
    );
    this.#set([ends[0], ends[1]]);
    this.#region.send();
  }

  #set(box: Box): void {
    this.#box = box;
    const { mask } = this.#region;
    mask?.clear();
    if (mask) markBox(mask, box, this.#size);
    this.#region.touch();
  }

  #choose(drawing: boolean): void {
    this.#drawing = drawing;
    this.#draw.setAttribute("aria-pressed", String(drawing));
    this.#move.setAttribute("aria-pressed", String(!drawing));
  }
}
