// The tokens of a text as flowing text, each on a ground that shows its value.

import type { Composer } from "../core/compose.ts";
import type { Display } from "../core/display.ts";
import type { Frame, Pixels } from "../core/frame.ts";
import { inkOn } from "../core/ink.ts";
import { tokenText } from "../core/text.ts";
import type { RawScene, Scene, SceneHost } from "../heatmap/scene.ts";
import { make } from "../shell/elements.ts";

/** A text, as the kernel sends it. */
export interface RawTokens extends RawScene {
  pieces?: string[];
  gaps?: string[];
  ids?: number[];
  special?: boolean[];
}

const STEPS: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 };

export class TextScene implements Scene {
  readonly hint = "Point at a token, or use the arrow keys";
  readonly root = make("div", "tokens", {
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

  constructor(private readonly host: SceneHost) {
    const { root } = this;
    const listen = { signal: host.life };
    root.addEventListener("pointermove", (e) => this.#point(e), listen);
    root.addEventListener("pointerdown", (e) => this.#point(e), listen);
    root.addEventListener("pointerleave", () => this.#read(null), listen);
    root.addEventListener("keydown", (e) => this.#key(e), listen);
    this.#followTheme();
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

  /** Replace the text. */
  load({ pieces = [], gaps = [], ids = [], special = [] }: RawTokens): void {
    this.#pieces = pieces;
    this.#ids = ids;
    this.#colors = [];
    this.#current = null;
    this.#tokens = pieces.map((piece, index) => {
      const blank = !piece.trim();
      const name = special[index] ? "token sw-special" : blank ? "token sw-blank" : "token";
      return make("span", name, { "data-token": String(index) }, [piece]);
    });
    this.root.replaceChildren(
      ...this.#tokens.flatMap((token, index) => (gaps[index] ? [gaps[index], token] : [token])),
    );
  }

  /** Repaint when the theme changes, because the ground is that of the page. */
  #followTheme(): void {
    const observer = new MutationObserver(() => this.host.repaint());
    observer.observe(document.body, { attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });
    this.host.life.addEventListener("abort", () => observer.disconnect());
  }

  /** One pixel for each token, in the color of the page: the ground to blend the values over. */
  #makeGround(): Pixels {
    const count = this.#tokens.length;
    const [red = 255, green = 255, blue = 255] = rgbOf(getComputedStyle(this.root).backgroundColor);
    const data = this.#ground?.data;
    const same = data?.[0] === red && data[1] === green && data[2] === blue;
    if (this.#ground?.width !== count || !same) {
      const pixels = new Uint8ClampedArray(4 * count);
      for (let i = 0; i < pixels.length; i += 4) pixels.set([red, green, blue, 255], i);
      this.#ground = { width: count, height: 1, data: pixels };
    }
    return this.#ground as Pixels;
  }

  paint(frame: Frame, display: Display, composer: Composer): boolean {
    if (frame.width !== this.#tokens.length) return false;
    const { data } = composer.blend(frame, this.#makeGround(), display);
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
    const token = (event.target as Element).closest<HTMLElement>("[data-token]");
    this.#read(token ? Number(token.dataset.token) : null);
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#tokens.length) return;
    const last = this.#tokens.length - 1;
    const step = STEPS[event.key];
    let to: number | null;
    if (step) to = this.#current === null ? 0 : Math.min(last, Math.max(0, this.#current + step));
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = last;
    else if (event.key === "Escape" && this.#current !== null) to = null;
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.#read(to);
    if (to !== null) this.#tokens[to].scrollIntoView({ block: "nearest" });
  }

  #read(index: number | null): void {
    if (index === this.#current) return;
    if (this.#current !== null) this.#tokens[this.#current]?.classList.remove("sw-current");
    this.#current = index;
    if (index !== null) this.#tokens[index]?.classList.add("sw-current");
    this.host.read();
  }
}

function rgbOf(color: string): number[] {
  return (color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
}
