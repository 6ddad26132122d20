// Marks a region of the image by brush or rectangle, with the pointer or the keyboard.

import { type Raster, toBytes } from "../core/frame.ts";
import { Mask, type Spot } from "../core/mask.ts";
import { make, setText } from "../shell/elements.ts";
import { type Elements, setDisabled } from "./elements.ts";

type Tool = "brush" | "rectangle" | "erase";

const FINE = 640;

/** A region as the kernel sends it. */
export interface RawRegion {
  width: number;
  height: number;
  bits: ArrayBufferView | ArrayBuffer;
}

const TOOLS: readonly (readonly [Tool, string, string])[] = [
  ["brush", "Brush", "Paint with the pointer; by key: arrows to move, Space to mark"],
  ["rectangle", "Rectangle", "Drag from corner to corner; by key: Space at one corner, Space at the other"],
  ["erase", "Erase", "Remove pixels from the marked region"],
];

export class RegionTools {
  readonly root: HTMLElement;
  readonly #surface = document.createElement("canvas");
  readonly #tools = new Map<Tool, HTMLButtonElement>();
  readonly #size: HTMLInputElement;
  readonly #undo: HTMLButtonElement;
  readonly #clear: HTMLButtonElement;
  readonly #words: HTMLElement;
  #mask: Mask | null = null;
  #tool: Tool = "brush";
  #on = false;
  #from: Spot | null = null;
  #corner: Spot | null = null;

  /**
   * @param raster the size of the image
   * @param cursor the pixel at the keyboard cursor
   * @param changed called when the marked region needs to be painted
   * @param done called with the marked region when a stroke has ended
   */
  constructor(
    private readonly elements: Elements,
    private readonly raster: () => Raster | null,
    private readonly cursor: () => Spot | null,
    private readonly changed: () => void,
    private readonly done: (mask: Mask) => void,
    life: AbortSignal,
  ) {
    const listen = { signal: life };
    const press = (name: string, label: string, title: string, act: () => void) => {
      const button = make("button", name, { type: "button", title }, [label]);
      button.addEventListener("click", act, listen);
      return button;
    };
    for (const [tool, label, title] of TOOLS) {
      this.#tools.set(
        tool,
        press("tool", label, title, () => this.#choose(tool)),
      );
    }
    this.#size = make("input", "brush-size", {
      type: "range",
      min: "1",
      max: "100",
      value: "24",
      "aria-label": "Brush size in pixels",
      title: "Brush size; by key: [ and ]",
    });
    this.#undo = press("tool", "Undo", "Undo the last stroke; by key: U", () => this.#back());
    this.#clear = press("tool", "Clear", "Clear the marked region; by key: Delete", () =>
      this.#change((m) => m.clear()),
    );
    const invert = press("tool", "Invert", "Mark everything else; by key: I", () =>
      this.#change((m) => m.invert()),
    );
    this.#words = make("span", "region-words", { "aria-live": "polite" });
    const label = make("label", "brush-label", {}, ["Size", this.#size]);
    this.root = make("div", "region", { role: "toolbar", "aria-label": "Mark a region", hidden: "" }, [
      make("div", "tools", { role: "group", "aria-label": "Tool" }, [...this.#tools.values()]),
      label,
      make("div", "tools", {}, [this.#undo, this.#clear, invert]),
      this.#words,
    ]);
    this.#choose("brush");

    const { canvas } = elements;
    canvas.addEventListener("pointerdown", (event) => this.#down(event), listen);
    canvas.addEventListener("pointermove", (event) => this.#move(event), listen);
    for (const name of ["pointerup", "pointercancel"] as const) {
      canvas.addEventListener(name, () => this.#up(), listen);
    }
    canvas.addEventListener("keydown", (event) => this.#key(event), listen);
  }

  /** The layer to draw over the image; null if nothing is marked. */
  get surface(): HTMLCanvasElement | null {
    return this.#on && this.#mask?.count ? this.#surface : null;
  }

  /** Show or hide the tools, which are visible while a test needs a region. */
  show(on: boolean): void {
    if (on === this.#on) return;
    this.#on = on;
    this.root.hidden = !on;
    this.elements.canvas.classList.toggle("sw-marking", on);
    this.#from = this.#corner = null;
    this.#draw();
  }

  /** Load a region sent by the kernel. */
  load(raw: RawRegion | null | undefined): void {
    if (!raw?.width) return;
    const mask = this.#fitting(raw);
    mask.snapshot();
    if (!mask.load(toBytes(raw.bits))) mask.undo();
    this.#draw();
  }

  #fitting({ width, height }: Raster): Mask {
    if (this.#mask?.width !== width || this.#mask.height !== height) this.#mask = new Mask(width, height);
    return this.#mask;
  }

  #choose(tool: Tool): void {
    this.#tool = tool;
    this.#corner = null;
    for (const [name, button] of this.#tools) button.setAttribute("aria-pressed", String(name === tool));
  }

  // -- pointer -------------------------------------------------------------------------------------------

  #spot(event: PointerEvent): Spot | null {
    const size = this.raster();
    const box = this.elements.canvas.getBoundingClientRect();
    if (!size || !box.width || !box.height) return null;
    return {
      x: ((event.clientX - box.left) / box.width) * size.width - 0.5,
      y: ((event.clientY - box.top) / box.height) * size.height - 0.5,
    };
  }

  #down(event: PointerEvent): void {
    const spot = this.#on && event.button === 0 ? this.#spot(event) : null;
    const size = this.raster();
    if (!spot || !size) return;
    this.elements.canvas.setPointerCapture?.(event.pointerId);
    this.#corner = null;
    this.#begin(size, spot);
    this.#reach(spot);
  }

  #move(event: PointerEvent): void {
    const spot = this.#from ? this.#spot(event) : null;
    if (spot) this.#reach(spot);
  }

  #up(): void {
    if (!this.#from) return;
    this.#from = null;
    this.#finish();
  }

  #begin(size: Raster, spot: Spot): void {
    this.#fitting(size).snapshot();
    this.#from = spot;
  }

  #reach(spot: Spot): void {
    const mask = this.#mask;
    if (!mask || !this.#from) return;
    if (this.#tool === "rectangle") {
      const round = ({ x, y }: Spot): Spot => ({ x: Math.round(x), y: Math.round(y) });
      mask.restore();
      mask.box(round(this.#from), round(spot), true);
    } else {
      mask.stroke(this.#from, spot, Number(this.#size.value), this.#tool === "brush");
      this.#from = spot;
    }
    this.#draw();
  }

  // -- keyboard ------------------------------------------------------------------------------------------

  #key(event: KeyboardEvent): void {
    if (!this.#on || event.altKey) return;
    const undo = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey);
    if (!undo && (event.ctrlKey || event.metaKey)) return;
    const size = Number(this.#size.value);
    const act: Record<string, () => void> = {
      " ": () => this.#mark(),
      Enter: () => this.#mark(),
      u: () => this.#back(),
      z: () => this.#back(),
      i: () => this.#change((mask) => mask.invert()),
      Delete: () => this.#change((mask) => mask.clear()),
      Backspace: () => this.#change((mask) => mask.clear()),
      "[": () => this.#resize(Math.floor(size / 1.25)),
      "]": () => this.#resize(Math.ceil(size * 1.25)),
    };
    const meant = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (meant === "z" && !undo) return;
    const work = act[meant];
    if (!work) return;
    event.preventDefault();
    event.stopPropagation();
    work();
  }

  #resize(size: number): void {
    this.#size.value = String(Math.min(100, Math.max(1, size)));
  }

  #mark(): void {
    const size = this.raster();
    const spot = this.cursor();
    if (!size || !spot) return;
    if (this.#tool === "rectangle" && !this.#corner) {
      this.#corner = spot;
      setText(this.#words, "One corner is set: press Space at the other corner to mark the rectangle");
      return;
    }
    this.#begin(size, this.#corner ?? spot);
    this.#reach(spot);
    this.#from = this.#corner = null;
    this.#finish();
  }

  // -- marked region -------------------------------------------------------------------------------------

  #change(work: (mask: Mask) => void): void {
    const size = this.raster();
    if (!size) return;
    const mask = this.#fitting(size);
    mask.snapshot();
    work(mask);
    this.#draw();
    this.#finish();
  }

  #back(): void {
    if (!this.#mask?.undoable) return;
    this.#mask.undo();
    this.#draw();
    this.#finish();
  }

  #finish(): void {
    if (this.#mask) this.done(this.#mask);
  }

  #draw(): void {
    const mask = this.#mask;
    setDisabled(this.elements, this.#undo, !mask?.undoable);
    setDisabled(this.elements, this.#clear, !mask?.count);
    if (mask) {
      // Finer than a small image, so that pixels stay square when it is enlarged.
      const scale = Math.max(1, Math.round(FINE / Math.max(mask.width, mask.height)));
      const [width, height] = [mask.width * scale, mask.height * scale];
      if (this.#surface.width !== width) this.#surface.width = width;
      if (this.#surface.height !== height) this.#surface.height = height;
      this.#surface.getContext("2d")?.putImageData(new ImageData(mask.overlay(scale), width, height), 0, 0);
    }
    const share = mask ? (100 * mask.count) / (mask.width * mask.height) : 0;
    setText(this.#words, share > 0 ? `${share.toFixed(1)} % marked` : "Nothing marked yet");
    this.changed();
  }
}
