// The tokens of a text as flowing text, each on a ground that shows its value.

import type { Limits } from "../core/clip.ts";
import type { Composer } from "../core/compose.ts";
import type { Display } from "../core/display.ts";
import { type Frame, type Pixels, type Raster, toBytes } from "../core/frame.ts";
import { inkOn } from "../core/ink.ts";
import { Mask, type Spot } from "../core/mask.ts";
import { tokenText } from "../core/text.ts";
import type { RawRegion } from "../heatmap/region.ts";
import type { RawScene, Scene, SceneHost } from "../heatmap/scene.ts";
import { make } from "../shell/elements.ts";
import { followTheme, groundOf } from "../shell/theme.ts";
import { EditTools, type RawEdits } from "./edit.ts";
import { RankedTokens } from "./ranked.ts";

/** A text, as the kernel sends it. */
export interface RawTokens extends RawScene, RawEdits {
  pieces?: string[];
  gaps?: string[];
  ids?: number[];
  special?: boolean[];
  /** What the model scores at each token; null if it scores the whole text. */
  scores?: "label" | "mask" | "next" | null;
  /** The index of the token whose score is explained. */
  explained?: number | null;
  /** Whether there is no kernel to ask, as on a saved page. */
  still?: boolean;
  /** The tokens of a decoder, whose scores are explained instead of those of the text's tokens. */
  output?: string[] | null;
}

const STEPS: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 };

export class TextScene implements Scene {
  readonly root = make("div", "flow");
  readonly #text = make("div", "tokens", {
    tabindex: "0",
    role: "group",
    dir: "auto",
    "aria-label": "The text. The arrow keys read single tokens.",
  });
  #tokens: HTMLElement[] = [];
  #pieces: string[] = [];
  #ids: number[] = [];
  #colors: string[] = [];
  #current: number | null = null;
  #ground: Pixels | null = null;
  #painted: Frame | null = null;
  /** The map of an earlier text. */
  #outdated: Frame | null = null;
  /** The chosen tokens, which can be edited, and are marked while a test needs a region. */
  #chosen = new Mask(0, 1);
  /** Where the chosen tokens begin; null if none are chosen. */
  #anchor: number | null = null;
  #dragging = false;
  #marking = false;
  readonly #edits: EditTools;
  readonly #ranked = new RankedTokens();
  /** The token after the text, which a causal model predicts. */
  readonly #next = make("span", "token sw-next", { title: "The next token, which the model predicts" }, [
    "▸",
  ]);
  #scores: RawTokens["scores"] = null;
  #still = false;
  readonly #output = make("div", "tokens sw-output", {
    role: "group",
    dir: "auto",
    "aria-label": "The model's output. Click a token to explain it.",
  });
  #explained: HTMLElement | null = null;
  /** The tokens whose scores can be explained. */
  #scored: HTMLElement[] = [];

  constructor(private readonly host: SceneHost) {
    const root = this.#text;
    this.#edits = new EditTools(host, () => root.focus());
    const flow = make("div", "flow-text", {}, host.cell ? [root] : [root, this.#edits.root]);
    this.root.append(flow);
    const listen = { signal: host.life };
    root.addEventListener("pointermove", (e) => this.#point(e), listen);
    root.addEventListener("pointerleave", () => this.#read(null), listen);
    followTheme(() => host.repaint(), host.life);
    if (host.cell) {
      root.removeAttribute("tabindex");
      return;
    }
    this.root.append(this.#ranked.root);
    root.addEventListener("pointerdown", (e) => this.#down(e), listen);
    root.addEventListener("dblclick", () => this.#edits.begin("replace"), listen);
    const { ownerDocument } = root;
    ownerDocument.addEventListener("pointerup", () => this.#up(), listen);
    ownerDocument.addEventListener("pointercancel", () => this.#up(), listen);
    this.root.addEventListener("click", (e) => this.#explain(elementAt(e)), listen);
    root.addEventListener("keydown", (e) => this.#key(e), listen);
  }

  reading(frame: Frame | null, composer: Composer): string | null {
    const index = this.#current;
    const count = this.#tokens.length;
    if (index === null || index >= count) return null;
    return tokenText(
      this.#pieces[index],
      this.#ids[index],
      composer.read(frame, { width: count, height: 1 }, index, 0),
    );
  }

  get hint(): string {
    if (this.#still) return "Point at a token, or use the arrow keys";
    if (this.#marking) return "Drag over tokens to mark them; by key: Space, or Shift with the arrow keys";
    if (!this.#scores) return "Point at a token, or use the arrow keys; drag or click to choose tokens";
    if (this.#scored !== this.#tokens) return "Click a token of the output to explain it";
    return "Click a token to explain it; the arrow keys read, Enter explains";
  }

  load(raw: RawTokens): void {
    const same =
      raw.pieces?.length === this.#pieces.length && raw.pieces.every((p, i) => p === this.#pieces[i]);
    if (!same) this.#replace(raw);
    this.#scores = raw.scores ?? null;
    this.#still = raw.still === true;
    this.#scored = this.#tokens;
    if (raw.output) {
      this.#scored = raw.output.map((piece) =>
        this.host.cell
          ? make("span", "token", {}, [piece])
          : make("button", "token", { type: "button" }, [piece]),
      );
      this.#output.replaceChildren(...this.#scored);
      this.#text.after(this.#output);
    }
    (raw.output ? this.#output : this.#text).classList.toggle(
      "sw-choosing",
      this.#scores !== null && !this.#still,
    );
    if (this.#scores === "next") (raw.output ? this.#output : this.#text).append(this.#next);
    this.#explained?.classList.remove("sw-explained");
    const index = raw.explained ?? -1;
    this.#explained = index === this.#scored.length ? this.#next : (this.#scored[index] ?? null);
    this.#explained?.classList.add("sw-explained");
    const gaps = raw.gaps ?? [];
    this.#edits.load(
      raw,
      this.#pieces.map((piece, index) => (gaps[index] ?? "") + piece),
    );
  }

  get size(): Raster {
    return { width: this.#tokens.length, height: 1 };
  }

  get spot(): Spot | null {
    return this.#current === null ? null : { x: this.#current, y: 0 };
  }

  readAt(spot: Spot | null): void {
    if (this.#current !== null) this.#tokens[this.#current]?.classList.remove("sw-current");
    this.#current = spot && spot.x < this.#tokens.length ? spot.x : null;
    if (this.#current !== null) this.#tokens[this.#current].classList.add("sw-current");
  }

  allowMarking(on: boolean): void {
    this.#marking = on;
    if (on && this.#chosen.count) this.#mark();
  }

  showRegion({ width, height, bits }: RawRegion): void {
    if (width !== this.#chosen.width || height !== 1) return;
    this.#chosen.load(toBytes(bits));
    this.#showChosen();
  }

  #replace({ pieces = [], gaps = [], ids = [], special = [] }: RawTokens): void {
    this.#pieces = pieces;
    this.#ids = ids;
    this.#colors = [];
    this.#current = null;
    this.#outdated = this.#painted;
    this.#chosen = new Mask(pieces.length, 1);
    this.#anchor = null;
    this.#edits.choose([]);
    this.#ranked.clear();
    this.#tokens = pieces.map((piece, index) => {
      const blank = !piece.trim();
      const name = special[index] ? "token sw-special" : blank ? "token sw-blank" : "token";
      return make("span", name, { "data-token": String(index) }, [piece]);
    });
    this.#text.replaceChildren(
      ...this.#tokens.flatMap((token, index) => (gaps[index] ? [gaps[index], token] : [token])),
    );
  }

  /** One pixel for each token, in the color of the page: the ground to blend the values over. */
  #makeGround(): Pixels {
    const count = this.#tokens.length;
    const [red, green, blue] = groundOf(this.#text);
    const data = this.#ground?.data;
    const same = data?.[0] === red && data[1] === green && data[2] === blue;
    if (this.#ground?.width !== count || !same) {
      const pixels = new Uint8ClampedArray(4 * count);
      for (let i = 0; i < pixels.length; i += 4) pixels.set([red, green, blue, 255], i);
      this.#ground = { width: count, height: 1, data: pixels };
    }
    return this.#ground as Pixels;
  }

  paint(frame: Frame, display: Display, composer: Composer, limits?: Limits): boolean {
    if (frame.width !== this.#tokens.length || frame === this.#outdated) return false;
    this.#painted = frame;
    const blended = composer.blend(frame, this.#makeGround(), display, limits);
    const { data } = blended;
    if (!this.host.cell) this.#ranked.show(frame, this.#pieces, blended);
    for (const [index, { style }] of this.#tokens.entries()) {
      const [red, green, blue] = data.subarray(4 * index, 4 * index + 3);
      const color = `rgb(${red}, ${green}, ${blue})`;
      if (color === this.#colors[index]) continue;
      this.#colors[index] = color;
      style.backgroundColor = color;
      style.color = inkOn(red, green, blue);
    }
    return true;
  }

  #point(event: PointerEvent): void {
    const index = indexAt(event);
    this.#read(index);
    if (this.#dragging && index !== null) this.#choose(index);
  }

  #down(event: PointerEvent): void {
    const index = indexAt(event);
    this.#read(index);
    if (event.button !== 0 || index === null) return;
    if (!event.shiftKey || this.#anchor === null) this.#anchor = index;
    this.#dragging = true;
    this.#choose(index);
  }

  #up(): void {
    if (!this.#dragging) return;
    this.#dragging = false;
    // A single token of a model that scores tokens was clicked to explain it.
    if (!this.#scores || this.#chosen.count > 1) this.#mark();
  }

  /** Choose the tokens from the anchor to this one. */
  #choose(index: number): void {
    const mask = this.#chosen;
    mask.clear();
    mask.box({ x: this.#anchor ?? index, y: 0 }, { x: index, y: 0 }, true);
    this.#showChosen();
  }

  /** Choose a token by key, or extend the chosen ones to it; plain arrows don't move a marked region. */
  #chooseByKey(to: number, extend: boolean): void {
    this.#anchor = extend ? (this.#anchor ?? this.#current ?? to) : to;
    this.#choose(to);
    this.#mark();
  }

  #clear(): void {
    this.#anchor = null;
    this.#chosen.clear();
    this.#showChosen();
    this.#mark();
  }

  #showChosen(): void {
    const chosen: number[] = [];
    for (const [index, { classList }] of this.#tokens.entries()) {
      const on = this.#chosen.has(index, 0);
      classList.toggle("sw-chosen", on);
      if (on) chosen.push(index);
    }
    this.#edits.choose(chosen);
  }

  /** Send the chosen tokens as the marked region, while a test needs one. */
  #mark(): void {
    const { width, height } = this.#chosen;
    if (this.#marking) this.host.mark({ width, height, bits: this.#chosen.pack() });
  }

  /** Ask the kernel to explain a token. */
  #explain(element: HTMLElement | null): void {
    if (!element || !this.#scores || this.#still) return;
    const token = element === this.#next ? this.#scored.length : this.#scored.indexOf(element);
    if (token >= 0) this.host.send({ token });
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#tokens.length) return;
    const last = this.#tokens.length - 1;
    const step = STEPS[event.key];
    const edit = event.key === "F2" ? "replace" : event.key === "Delete" ? "delete" : null;
    if (edit) {
      if (this.#edits.begin(edit)) {
        event.preventDefault();
        event.stopPropagation();
      }
      return;
    }
    let to: number | null;
    if (step) to = this.#current === null ? 0 : Math.min(last, Math.max(0, this.#current + step));
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = last;
    else if (event.key === "Escape" && (this.#current !== null || this.#chosen.count)) to = null;
    else if (event.key === " " && this.#current !== null) to = this.#current;
    else if (event.key === "Enter" && this.#scored === this.#tokens) to = this.#current;
    else return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Enter" && to !== null) this.#explain(this.#tokens[to]);
    else if (to === null) this.#clear();
    else if (event.shiftKey || event.key === " " || !this.#marking) this.#chooseByKey(to, event.shiftKey);
    this.#read(to);
    if (to !== null) this.#tokens[to].scrollIntoView({ block: "nearest" });
  }

  #read(index: number | null): void {
    if (index === this.#current) return;
    this.readAt(index === null ? null : { x: index, y: 0 });
    this.host.read();
  }
}

function indexAt(event: Event): number | null {
  const token = elementAt(event)?.dataset.token;
  return token === undefined ? null : Number(token);
}

function elementAt(event: Event): HTMLElement | null {
  return (event.target as Element).closest<HTMLElement>(".sw-token");
}
