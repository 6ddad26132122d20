// A volume as three planes side by side, or a video as one frame at a time. The kernel sends the planes that are shown;
// a saved page has the whole volume, of which they are cut.

import type { Limits } from "../core/clip.ts";
import { Coalescer } from "../core/coalesce.ts";
import type { Composer } from "../core/compose.ts";
import type { Display } from "../core/display.ts";
import { codeValue, type Frame, type Pixels, type Raster, toBytes } from "../core/frame.ts";
import type { Spot } from "../core/mask.ts";
import {
  colored,
  cut,
  moved,
  PLANES,
  type Plane,
  rasterOf,
  same,
  shareBelow,
  type Triple,
  tableLimits,
  unpack,
  voxelAt,
} from "../core/planes.ts";
import { voxelText } from "../core/text.ts";
import type { RawRegion } from "../heatmap/region.ts";
import type { RawScene, Scene, SceneHost } from "../heatmap/scene.ts";
import { make, setText } from "../shell/elements.ts";
import { watchSize } from "../shell/stage.ts";
import { VolumeMarks } from "./marks.ts";
import { PlaneView } from "./plane.ts";

/** The pixels of the shown planes, one plane after the other. */
export interface RawPlanes {
  /** The voxel in which the planes meet. */
  at?: Triple;
  pixels?: DataView | ArrayBuffer;
}

/** A volume, as the kernel sends it. */
export interface RawVolume extends RawScene, RawPlanes {
  size?: Triple;
  /** 1 for gray, 3 for colors. */
  channels?: number;
  /** The names of the planes; one for video. */
  planes?: string[];
  /** The names of the axes. */
  axes?: string[];
  /** Whether pixels and frames hold the whole volume instead of the shown planes: on a saved page. */
  whole?: boolean;
}

interface Ground {
  at: Triple;
  images: Pixels[];
}

/** A frame, split into its planes and the table of levels. */
interface Split {
  ground: Ground;
  maps: Frame[];
  table: Uint16Array;
}

const PLAY_MS = 100;

export class VolumeScene implements Scene {
  readonly root = make("div", "volume-scene", { role: "group", "aria-label": "The volume" });
  readonly #row = make("div", "planes");
  readonly #play = make("button", "tool sw-play", { type: "button", hidden: "" }, ["Play"]);
  readonly #marks: VolumeMarks;
  readonly #sends: Coalescer;
  #views: PlaneView[] = [];
  #axes: string[] = [];
  #size: Triple = [0, 0, 0];
  #channels = 1;
  #at: Triple = [0, 0, 0];
  /** The voxel that was requested and has not been painted yet. */
  #wanted: Triple | null = null;
  /** The pixels of the whole volume; null if the kernel sends planes. */
  #whole: RawPlanes["pixels"] | null = null;
  #ground: Ground | null = null;
  #frame: Frame | null = null;
  #split: Split | null = null;
  #painted: [Frame, Display, Limits | undefined] | null = null;
  readonly #levels = new WeakMap<Frame, Frame>();
  #read: { view: PlaneView; spot: Spot } | null = null;
  #drag: PlaneView | null = null;
  #playing = 0;

  constructor(private readonly host: SceneHost) {
    this.#marks = new VolumeMarks(host, () => host.repaint());
    this.#sends = new Coalescer(() => this.#wanted && host.send({ at: this.#wanted }));
    this.#play.addEventListener("click", () => this.#toggle(), { signal: host.life });
    if (!host.cell) this.root.append(make("div", "volume-bar", {}, [this.#play, this.#marks.root]));
    this.root.append(this.#row);
    watchSize(this.#row, () => this.#show(), host.life);
    host.life.addEventListener("abort", () => {
      this.#stop();
      this.#sends.cancel();
    });
  }

  // -- the interface of a scene --------------------------------------------------------------------------

  get hint(): string {
    return this.#views.length > 1
      ? "Click to move the planes, or use the arrow keys; Page Up and Page Down go through slices"
      : "Point at a pixel, or use the arrow keys; Page Up and Page Down go through time";
  }

  load(raw: RawVolume): void {
    const { size, planes = [], axes = [], channels = 1 } = raw;
    if (!size || !planes.length) return;
    this.#channels = channels;
    if (this.#views.length !== planes.length || !same(size, this.#size)) {
      this.#size = size;
      this.#axes = axes;
      this.#views = planes.map((name, k) => this.#makeView(PLANES[k], name, axes[k]));
      this.#row.replaceChildren(...this.#views.map((view) => view.root));
      this.#play.hidden = planes.length > 1;
      this.#marks.reset(size);
      this.#at = raw.at ?? [0, 0, 0];
    }
    this.#whole = raw.whole ? raw.pixels : null;
    this.#ground = this.#groundOf(this.#shown ?? raw) ?? this.#ground;
    if (this.#ground && same(this.#ground.at, this.#wanted)) this.#wanted = null;
    this.#move();
    this.#show();
  }

  paint(frame: Frame, display: Display, _composer: Composer, limits?: Limits): boolean {
    if (frame !== this.#frame) {
      const split = this.#splitOf(frame);
      if (!split) return false;
      this.#frame = frame;
      this.#split = split;
      this.#ground = split.ground;
      if (same(split.ground.at, this.#wanted)) this.#wanted = null;
      if (!this.#wanted) this.#at = split.ground.at;
      this.#move();
    }
    this.#painted = [frame, display, limits];
    return this.#draw();
  }

  limits(frame: Frame, display: Display): Limits | null {
    return frame === this.#frame && this.#split
      ? tableLimits(this.#split.table, frame.signed, display.clip)
      : null;
  }

  /** Where each plane begins in the row of a frame, and where the last one ends. */
  get #starts(): number[] {
    const starts = [0];
    for (const { plane } of this.#views) {
      const { width, height } = rasterOf(plane, this.#size);
      starts.push(starts[starts.length - 1] + width * height);
    }
    return starts;
  }

  whole(frame: Frame): Frame {
    const codes = frame.codes.subarray(this.#starts.at(-1));
    const levels = this.#levels.get(frame) ?? { ...frame, width: codes.length, height: 1, codes };
    this.#levels.set(frame, levels);
    return levels;
  }

  /** All pixels of the planes in one row. */
  get size(): Raster {
    return { width: this.#starts.at(-1) ?? 0, height: 1 };
  }

  get spot(): Spot | null {
    const read = this.#read;
    if (!read) return null;
    const { width } = rasterOf(read.view.plane, this.#size);
    const start = this.#starts[this.#views.indexOf(read.view)];
    return { x: start + read.spot.y * width + read.spot.x, y: 0 };
  }

  readAt(spot: Spot | null): void {
    const starts = this.#starts;
    const k = spot ? this.#views.findIndex((_, k) => spot.x < starts[k + 1]) : -1;
    this.#read = null;
    if (spot && k >= 0) {
      const { width } = rasterOf(this.#views[k].plane, this.#size);
      const index = spot.x - starts[k];
      this.#read = { view: this.#views[k], spot: { x: index % width, y: Math.floor(index / width) } };
    }
    for (const view of this.#views) view.point(view === this.#read?.view ? this.#read.spot : null);
  }

  reading(): string | null {
    const read = this.#read;
    if (!read || !this.#size[0]) return null;
    const { plane } = read.view;
    const voxel = voxelAt(plane, read.spot, this.#at);
    const names = voxel.map((index, axis) => `${this.#axes[axis]} ${index}`);
    const split = this.#split;
    const frame = this.#frame;
    if (!split || !frame || split.ground.at[plane.cut] !== this.#at[plane.cut])
      return voxelText(names, null, 0);
    const { codes, width } = split.maps[PLANES.indexOf(plane)];
    const code = codes[read.spot.y * width + read.spot.x];
    return voxelText(names, codeValue(frame, code), shareBelow(split.table, code, frame.signed));
  }

  allowMarking(on: boolean): void {
    this.#marks.show(on);
    this.root.classList.toggle("sw-marking", on);
  }

  showRegion(region: RawRegion): void {
    this.#marks.load(region);
  }

  // -- drawing -------------------------------------------------------------------------------------------

  /** The planes to show of the whole volume; null if the kernel sends planes. */
  get #shown(): RawPlanes | null {
    return this.#whole ? { at: this.#at, pixels: this.#whole } : null;
  }

  /** The planes in a row of values, and what follows them. */
  #unpack<T extends Uint16Array | Uint8Array>(row: T, channels = 1): { parts: T[]; rest: T } | null {
    const planes = this.#views.map((view) => view.plane);
    return this.#whole
      ? cut(row, planes, this.#size, this.#at, channels)
      : unpack(row, planes, this.#size, channels);
  }

  #groundOf({ at, pixels }: RawPlanes): Ground | null {
    const planes = this.#views.map((view) => view.plane);
    const unpacked = at && this.#unpack(toBytes(pixels), this.#channels);
    if (!at || !unpacked) return null;
    const images = unpacked.parts.map((bytes, k) => ({
      ...rasterOf(planes[k], this.#size),
      data: colored(bytes, this.#channels),
    }));
    return { at, images };
  }

  #splitOf(frame: Frame): Split | null {
    const planes = this.#views.map((view) => view.plane);
    const unpacked = this.#unpack(frame.codes);
    const ground = this.#groundOf(this.#shown ?? ((frame.ground ?? {}) as RawPlanes));
    if (!unpacked || !ground || unpacked.rest.length < 2) return null;
    const maps = unpacked.parts.map((codes, k) => ({ ...frame, ...rasterOf(planes[k], this.#size), codes }));
    return { ground, maps, table: unpacked.rest };
  }

  /** Draw again in the next animation frame; before the first map, without it. */
  #show(): void {
    if (this.#painted) this.host.repaint();
    else this.#draw();
  }

  #draw(): boolean {
    const ground = this.#ground;
    if (!ground) return false;
    const split = this.#split;
    const [frame, display, shared] = this.#painted ?? [];
    // While the map of other planes is not there yet, the planes are shown without it.
    const limits =
      frame && display && split?.ground === ground ? (shared ?? this.limits(frame, display)) : null;
    let drawn = false;
    for (const [k, view] of this.#views.entries()) {
      const map = limits && split && display ? { frame: split.maps[k], display, limits } : null;
      drawn = view.draw(ground.images[k], map, this.#marks.layer(view.plane, ground.at)) || drawn;
    }
    return drawn;
  }

  #move(): void {
    for (const view of this.#views) view.move(this.#at);
  }

  // -- planes --------------------------------------------------------------------------------------------

  #makeView(plane: Plane, name: string, axis: string): PlaneView {
    const view = new PlaneView(plane, name, axis, this.#size, this.host.cell === true);
    const { canvas, slider } = view;
    const listen = { signal: this.host.life };
    canvas.addEventListener("pointermove", (event) => this.#point(view, event), listen);
    canvas.addEventListener("pointerleave", () => this.#drag || this.#readAt(null), listen);
    if (this.host.cell) return view;
    slider.addEventListener(
      "input",
      () => this.#go(moved(this.#at, plane.cut, Number(slider.value) - this.#at[plane.cut], this.#size)),
      listen,
    );
    canvas.addEventListener("pointerdown", (event) => this.#down(view, event), listen);
    for (const name of ["pointerup", "pointercancel"] as const) {
      canvas.addEventListener(name, () => this.#up(), listen);
    }
    canvas.addEventListener("wheel", (event) => this.#wheel(view, event), { ...listen, passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(view, event), listen);
    return view;
  }

  /** Move the planes to a voxel: the lines at once, the planes as soon as the kernel has sent them, if it has to. */
  #go(at: Triple): void {
    if (same(at, this.#at)) return;
    this.#at = at;
    this.#move();
    if (this.#shown) {
      this.#split = this.#frame && this.#splitOf(this.#frame);
      this.#ground = this.#split?.ground ?? this.#groundOf(this.#shown);
      this.#show();
    } else {
      this.#wanted = at;
      this.#sends.request("frame");
    }
    this.host.read();
  }

  #down(view: PlaneView, event: PointerEvent): void {
    if (event.button !== 0 || !this.#size[0]) return;
    view.canvas.setPointerCapture?.(event.pointerId);
    this.#drag = view;
    if (this.#marks.drawing) this.#marks.begin(view.plane, view.spotAt(event), this.#at);
    this.#point(view, event);
  }

  #point(view: PlaneView, event: PointerEvent): void {
    if (!this.#size[0]) return;
    const spot = view.spotAt(event);
    if (this.#drag === view) {
      if (this.#marks.drawing) this.#marks.reach(spot, this.#at);
      else this.#go(voxelAt(view.plane, spot, this.#at));
    }
    this.#readAt({ view, spot });
  }

  #up(): void {
    this.#drag = null;
    this.#marks.end();
  }

  /** Step through slices once the plane has the focus, or with Ctrl: otherwise the wheel scrolls the page. */
  #wheel(view: PlaneView, event: WheelEvent): void {
    const focused = document.activeElement === view.canvas;
    if (!event.deltaY || !(focused || event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    this.#go(moved(this.#at, view.plane.cut, Math.sign(event.deltaY), this.#size));
  }

  #key(view: PlaneView, event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#size[0]) return;
    const { cut, rows, columns } = view.plane;
    const far = event.shiftKey ? 10 : 1;
    const last = this.#size[cut];
    const steps: Record<string, readonly [0 | 1 | 2, number]> = {
      ArrowLeft: [columns, -far],
      ArrowRight: [columns, far],
      ArrowUp: [rows, -far],
      ArrowDown: [rows, far],
      PageUp: [cut, -far],
      PageDown: [cut, far],
      Home: [cut, -last],
      End: [cut, last],
    };
    const mark = this.#marks.key(event.key, this.#at);
    const step = steps[event.key];
    if (mark) mark();
    else if (step) this.#go(moved(this.#at, ...step, this.#size));
    else if (event.key === "Escape" && this.#read) this.#readAt(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
    if (step) this.#readAt({ view, spot: { x: this.#at[columns], y: this.#at[rows] } });
  }

  #readAt(read: { view: PlaneView; spot: Spot } | null): void {
    this.#read = read;
    this.host.read();
  }

  // -- playing -------------------------------------------------------------------------------------------

  #toggle(): void {
    if (this.#playing) {
      this.#stop();
      return;
    }
    // Each frame waits for the one before, so that a slow connection slows the video down.
    this.#playing = window.setInterval(() => {
      if (this.#wanted) return;
      this.#go([(this.#at[0] + 1) % this.#size[0], this.#at[1], this.#at[2]]);
    }, PLAY_MS);
    setText(this.#play, "Pause");
  }

  #stop(): void {
    window.clearInterval(this.#playing);
    this.#playing = 0;
    setText(this.#play, "Play");
  }
}
