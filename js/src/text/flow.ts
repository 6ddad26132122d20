// The tokens of a text as flowing text, each on a ground that shows its value.

import type { Pixels } from "../core/frame.ts";
import { inkOn } from "../core/ink.ts";
import { make } from "../shell/elements.ts";

/** The value of the `tokens` trait; `{}` if the input is not a text. */
export interface RawTokens {
  pieces?: string[];
  gaps?: string[];
  ids?: number[];
  special?: boolean[];
}

const STEPS: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 };

export class TokenFlow {
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

  /** @param changed called when another token is read */
  constructor(
    private readonly changed: () => void,
    life: AbortSignal,
  ) {
    const { root } = this;
    const listen = { signal: life };
    root.addEventListener("pointermove", (e) => this.#point(e), listen);
    root.addEventListener("pointerdown", (e) => this.#point(e), listen);
    root.addEventListener("pointerleave", () => this.#read(null), listen);
    root.addEventListener("keydown", (e) => this.#key(e), listen);
  }

  /** The token being read: its index, text and id; null if none is. */
  get token(): { index: number; piece: string; id: number | undefined } | null {
    const index = this.#current;
    if (index === null || index >= this.count) return null;
    return { index, piece: this.#pieces[index], id: this.#ids[index] };
  }

  get count(): number {
    return this.#tokens.length;
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

  /** One pixel for each token, in the color of the page: the ground to blend the values over. */
  get ground(): Pixels {
    const [red = 255, green = 255, blue = 255] = rgbOf(getComputedStyle(this.root).backgroundColor);
    const data = this.#ground?.data;
    const same = data?.[0] === red && data[1] === green && data[2] === blue;
    if (this.#ground?.width !== this.count || !same) {
      const pixels = new Uint8ClampedArray(4 * this.count);
      for (let i = 0; i < pixels.length; i += 4) pixels.set([red, green, blue, 255], i);
      this.#ground = { width: this.count, height: 1, data: pixels };
    }
    return this.#ground as Pixels;
  }

  /** Color the tokens, one pixel each. */
  paint({ data }: Pixels): void {
    for (const [index, { style }] of this.#tokens.entries()) {
      const [red, green, blue] = data.subarray(4 * index, 4 * index + 3);
      const color = `rgb(${red}, ${green}, ${blue})`;
      if (color === this.#colors[index]) continue;
      this.#colors[index] = color;
      style.backgroundColor = color;
      style.color = inkOn(red, green, blue);
    }
  }

  #point(event: PointerEvent): void {
    const token = (event.target as Element).closest<HTMLElement>("[data-token]");
    this.#read(token ? Number(token.dataset.token) : null);
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.count) return;
    const last = this.count - 1;
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
    this.changed();
  }
}

function rgbOf(color: string): number[] {
  return (color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
}
