// A cell of a grid: a map over its image, or another input in its colors, and a line of text below it.

import type { Limits } from "../core/clip.ts";
import { Composer } from "../core/compose.ts";
import type { Display } from "../core/display.ts";
import { decodeFrame, type Frame, type Pixels, type Raster, type RawFrame, toBytes } from "../core/frame.ts";
import { Acknowledger, Newest, receive } from "../core/order.ts";
import { pngSize } from "../core/png.ts";
import type { Pooled } from "../core/scale.ts";
import { formatNumber, formatShare, progressParts, type Status } from "../core/text.ts";
import type { RawScene, Scene } from "../heatmap/scene.ts";
import { sceneOf } from "../heatmap/scenes.ts";
import { make, setText } from "../shell/elements.ts";
import { decodeImage } from "../shell/image.ts";
import { lockMark } from "../shell/marks.ts";
import type { LiveModel } from "../shell/models.ts";
import { Stage } from "../shell/stage.ts";
import { tell } from "../shell/traits.ts";

/** A point as fractions of an image's width and height, valid for images of any size. */
export interface Spot {
  readonly u: number;
  readonly v: number;
  /** The number of tokens or samples; inputs that have another number don't show the point. */
  readonly columns?: number;
}

/** A cell's model, with an image, the newest frame and a status. */
export interface CellModel extends LiveModel {
  send?(message: object): void;
}

/** The events that a cell reports to its grid. */
export interface CellEvents {
  dirty(cell: GridCell): void;
  /** The cell's range of values changed, and thereby the scale that it shares with other cells. */
  moved(): void;
  /** A token or a sample is read; null if none is. */
  point(spot: Spot | null): void;
}

const EVENTS = "change:frame change:image change:scene change:status";

export class GridCell {
  readonly root: HTMLElement;
  readonly canvas = make("canvas", "cell-canvas");
  readonly lock = make("button", "lock", { type: "button", tabindex: "-1" }, [lockMark()]);
  /** What contains the map. */
  readonly body: HTMLElement;
  readonly #cursor = make("div", "cursor", { hidden: "" });
  readonly #waiting = make("div", "empty");
  readonly #line = make("div", "cell-line");
  readonly #stage: Stage;
  readonly #composer = new Composer();
  readonly #newest = new Newest<Frame>();
  readonly #acknowledge: Acknowledger;
  #image: Pixels | null = null;
  #size: Raster = { width: 1, height: 1 };
  #turn = 0;
  readonly #life = new AbortController();
  #scene: Scene | null = null;
  #rawScene: unknown;
  #decoding = false;
  #raw: unknown;
  #png: unknown;

  constructor(
    readonly model: CellModel,
    readonly index: number,
    private readonly events: CellEvents,
  ) {
    this.#stage = new Stage(this.canvas);
    this.body = make("div", "cell-stage", {}, [this.canvas, this.#cursor, this.#waiting]);
    this.root = make("div", "cell", { role: "gridcell", tabindex: "-1", "data-cell": String(index) }, [
      this.body,
      make("div", "caption", {}, [this.lock, this.#line]),
    ]);
    this.#acknowledge = new Acknowledger((stamp) => tell(() => model.send?.({ type: "painted", ...stamp })));
    for (const event of EVENTS.split(" ")) model.on(event, this.#changed);
    this.#readScene();
    this.#readImage();
    this.#readFrame();
    this.say(null);
  }

  remove(): void {
    this.#life.abort();
    this.#acknowledge.cancel();
    for (const event of EVENTS.split(" ")) this.model.off(event, this.#changed);
    this.root.remove();
  }

  get frame(): Frame | null {
    return this.#newest.current;
  }

  get image(): Pixels | null {
    return this.#image;
  }

  get size(): Raster {
    return this.#scene?.size ?? this.#image ?? this.frame ?? this.#size;
  }

  /** The input, if it is not an image. */
  get scene(): RawScene | null {
    return this.#scene && (this.#rawScene as RawScene);
  }

  /** The point at a column and a row of the input. */
  spotAt(x: number, y: number): Spot {
    const { width, height } = this.size;
    const spot = { u: (x + 0.5) / width, v: (y + 0.5) / height };
    return this.#scene ? { ...spot, columns: width } : spot;
  }

  get status(): Status {
    return (this.model.get("status") ?? {}) as Status;
  }

  get name(): string {
    return String(this.model.get("name") ?? "");
  }

  /** The group of cells with comparable values; signed maps, which have other colors, form their own groups. */
  get group(): string {
    return `${this.frame?.signed ? "signed " : ""}${String(this.model.get("group") ?? "")}`;
  }

  get pooled(): Pooled | null {
    return this.frame && this.#composer.pooled(this.#whole(this.frame));
  }

  ownLimits(display: Display): Limits | null {
    return this.frame && this.#composer.limits(this.#whole(this.frame), display);
  }

  /** Whether frames show only a part of the input. */
  get partial(): boolean {
    return this.#scene?.whole !== undefined;
  }

  #whole(frame: Frame): Frame {
    return this.#scene?.whole?.(frame) ?? frame;
  }

  /** Paint the cell; returns whether anything was drawn. */
  paint(display: Display, limits: Limits | null): boolean {
    const frame = this.frame;
    const size = this.#image ?? frame;
    let drawn = false;
    if (this.#scene) {
      drawn = frame !== null && this.#scene.paint(frame, display, this.#composer, limits ?? undefined);
    } else if (size && !(frame && this.#decoding)) {
      const pixels = frame
        ? this.#composer.blend(frame, this.#image, display, limits ?? this.#composer.limits(frame, display))
        : this.#image;
      drawn = pixels !== null && this.#stage.draw(pixels, []);
    }
    this.#waiting.hidden = size !== null;
    this.root.classList.toggle("sw-bare", !frame);
    if (frame && drawn) {
      this.root.dataset.generation = String(frame.generation);
      this.root.dataset.index = String(frame.index);
    }
    this.#acknowledge.painted();
    return drawn;
  }

  /** Show the value at a spot, or the status if there is none. */
  say(spot: Spot | null): void {
    const frame = this.frame;
    const size = this.size;
    const { width, height } = size;
    const status = this.status;
    this.#cursor.hidden = spot === null;
    this.root.dataset.state = status.state ?? "idle";
    let line = rest(status);
    const at = pixelAt(spot, size);
    this.#scene?.readAt?.(at);
    if (at && this.partial) {
      line = this.#scene?.reading(frame, this.#composer) ?? line;
    } else if (at) {
      const { x, y } = at;
      this.#cursor.style.left = `${((x + 0.5) / width) * 100}%`;
      this.#cursor.style.top = `${((y + 0.5) / height) * 100}%`;
      const { value, share } = this.#composer.read(frame, size, x, y);
      const wide = this.root.clientWidth >= 180;
      const where = this.#scene ? ` · ${this.#scene.reading(null, this.#composer) ?? ""}` : "";
      if (value !== null) {
        line = `${formatNumber(value)}${wide ? ` · ${formatShare(share)} of the total` : ""}${where}`;
      }
    }
    setText(this.#line, line);
    const words = status.message ? `${status.message} ${status.remedy ?? ""}` : rest(status);
    this.#line.title = [this.name, words, ...(status.notes ?? [])].filter(Boolean).join("\n");
    this.root.setAttribute("aria-label", `${this.name}. ${words}`);
  }

  readonly #changed = (): void => {
    if (this.#life.signal.aborted) return;
    this.#readScene();
    this.#readImage();
    this.#readFrame();
    this.say(null);
  };

  #readFrame(): void {
    const raw = this.model.get("frame") as RawFrame | undefined;
    if (raw === this.#raw) return;
    this.#raw = raw;
    if (!receive(decodeFrame(raw), raw, this.#newest, this.#acknowledge)) return;
    this.events.moved();
    this.events.dirty(this);
  }

  #readScene(): void {
    const raw = this.model.get("scene") as RawScene | undefined;
    if (raw === this.#rawScene) return;
    this.#rawScene = raw;
    if (!this.#scene) {
      this.#scene = sceneOf(raw, {
        ...READ_ONLY,
        life: this.#life.signal,
        read: () => {
          const spot = this.#scene?.spot;
          this.events.point(spot ? this.spotAt(spot.x, spot.y) : null);
        },
        repaint: () => this.events.dirty(this),
      });
      if (this.#scene) showScene(this.body, this.#scene);
    }
    this.#scene?.load(raw ?? {});
    this.events.dirty(this);
  }

  async #readImage(): Promise<void> {
    const png = this.model.get("image");
    if (png === this.#png) return;
    this.#png = png;
    const bytes = toBytes(png as DataView | undefined);
    const turn = ++this.#turn;
    const size = pngSize(bytes);
    if (size) this.#shape(size);
    this.#decoding = bytes.length > 0;
    let image: Pixels | null = null;
    try {
      image = bytes.length > 0 ? await imageOf(png as object, bytes) : null;
    } catch {
      setText(this.#waiting, "The image could not be decoded");
    }
    if (turn !== this.#turn || this.#life.signal.aborted) return;
    this.#decoding = false;
    this.#image = image;
    if (image) this.#shape(image);
    this.events.dirty(this);
  }

  #shape(size: Raster): void {
    this.#size = size;
    this.root.style.setProperty("--sw-ratio", String(size.width / size.height));
  }
}

/** The part of a scene's host that asks the kernel nothing. */
export const READ_ONLY = { cell: true, send: () => {}, mark: () => {} };

/** Show a scene in place of a canvas. */
export function showScene(box: HTMLElement, scene: Scene): void {
  box.classList.add("sw-scened");
  box.replaceChildren(scene.root);
}

/** The column and the row of an input at a spot; null if there is none. */
export function pixelAt(spot: Spot | null, { width, height }: Raster): { x: number; y: number } | null {
  if (!spot || (spot.columns ?? width) !== width) return null;
  return { x: Math.floor(spot.u * width), y: Math.floor(spot.v * height) };
}

const DECODED = new WeakMap<object, Promise<Pixels>>();

/** Decode an image once for all cells with the same bytes. */
function imageOf(key: object, bytes: Uint8Array): Promise<Pixels> {
  const decoded = DECODED.get(key) ?? decodeImage(bytes);
  DECODED.set(key, decoded);
  return decoded;
}

/** The line below a map while the pointer is elsewhere. */
function rest(status: Status): string {
  if (status.state === "error") return `Failed: ${status.message ?? ""}`;
  if (status.state === "running") return progressParts(status)[0] ?? "";
  if (status.state === "stopped") return "Stopped";
  return status.title || (status.state === "done" ? "" : "Waiting");
}

/** The position of the pointer in the image on a canvas; null if the canvas has no size. */
export function spotIn(canvas: HTMLCanvasElement, event: PointerEvent): Spot | null {
  const box = canvas.getBoundingClientRect();
  if (!box.width || !box.height) return null;
  const inside = (share: number) => Math.min(1 - 1e-9, Math.max(0, share));
  return {
    u: inside((event.clientX - box.left) / box.width),
    v: inside((event.clientY - box.top) / box.height),
  };
}
