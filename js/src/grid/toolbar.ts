// The toolbar above a grid, with its progress, color scales and cell size.

import { make, setText } from "../shell/elements.ts";

export type ScaleChoice = "shared" | "separate";

export interface Acts {
  stop(): void;
  scale(choice: ScaleChoice): void;
  width(pixels: number): void;
}

const CHOICES: readonly (readonly [ScaleChoice, string, string])[] = [
  [
    "shared",
    "One scale",
    "Equal colors mean equal values, in all locked maps whose values can be compared (same method and score)",
  ],
  [
    "separate",
    "Same clip for all",
    "Each map is clipped at the same percentiles of its own values: equal colors mean equal ranks",
  ],
];

export class Toolbar {
  readonly root: HTMLElement;
  readonly #words = make("div", "progress-text", { "aria-live": "polite" });
  readonly #fill = make("div", "fill");
  readonly #stop = make("button", "stop", { type: "button" }, ["Stop"]);
  readonly #size = make("input", "cell-size", {
    type: "range",
    "aria-label": "Size of the maps",
    title: "Size of the maps",
  });
  readonly #choices = new Map<ScaleChoice, HTMLButtonElement>();

  constructor(acts: Acts, life: AbortSignal) {
    const listen = { signal: life };
    this.#stop.addEventListener("click", () => acts.stop(), listen);
    for (const [choice, label, title] of CHOICES) {
      const button = make("button", "tool", { type: "button", title }, [label]);
      button.addEventListener("click", () => acts.scale(choice), listen);
      this.#choices.set(choice, button);
    }
    const size = this.#size;
    size.addEventListener("input", () => acts.width(Number(size.value)), listen);
    this.root = make("div", "toolbar", {}, [
      make("div", "run-state", {}, [this.#words, make("div", "progress", {}, [this.#fill])]),
      this.#stop,
      make("div", "tools", { role: "group", "aria-label": "Color scale" }, [...this.#choices.values()]),
      make("label", "size-label", {}, ["Size", size]),
    ]);
  }

  showProgress(words: string, share: number, state: "running" | "done" | "stopped"): void {
    setText(this.#words, words);
    this.#words.title = words;
    this.#fill.style.width = `${100 * share}%`;
    this.#stop.disabled = state === "done";
    setText(this.#stop, state === "stopped" ? "Resume" : "Stop");
  }

  /** Set the limits of the maps' width, in pixels of the page. */
  limitWidth(least: number, most: number): void {
    this.#size.min = String(least);
    this.#size.max = String(most);
  }

  showWidth(pixels: number): void {
    this.#size.value = String(pixels);
  }

  showScale(chosen: ScaleChoice): void {
    for (const [choice, button] of this.#choices)
      button.setAttribute("aria-pressed", String(choice === chosen));
  }
}
