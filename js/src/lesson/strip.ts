// The strip of steps: a button for each, with its number, title and thumbnail. The current step is marked.

import { Composer } from "../core/compose.ts";
import { fill, make, setText } from "../shell/elements.ts";
import { Stage } from "../shell/stage.ts";
import type { StepInfo } from "./content.ts";
import { pixelsOf, type Seen } from "./panel.ts";

const STATES: Record<string, string> = {
  refused: "does not apply",
  stopped: "stopped",
  "": "not computed yet",
};

interface Item {
  button: HTMLButtonElement;
  stage: Stage;
  composer: Composer;
  state: HTMLElement;
  glyph: HTMLElement;
}

export class Strip {
  readonly root = make("div", "lesson-strip", { role: "group", "aria-label": "Steps" });
  #items: Item[] = [];

  constructor(
    private readonly go: (step: number) => void,
    private readonly life: AbortSignal,
  ) {}

  fill(steps: readonly StepInfo[]): void {
    this.#items = [];
    fill(this.root, [...steps], (step, i) => {
      const canvas = make("canvas", "lesson-thumb", { "aria-hidden": "true" });
      const glyph = make("span", "lesson-glyph", { "aria-hidden": "true" });
      const state = make("span", "unseen");
      const number = make("span", "lesson-number", {}, [String(i + 1)]);
      const title = make("span", "lesson-title", {}, [step.title]);
      const image = make("span", "lesson-small", {}, [canvas, glyph, number]);
      const button = make("button", "lesson-step", { type: "button" }, [image, title, state]);
      button.addEventListener("click", () => this.go(i), { signal: this.life });
      this.#items.push({ button, stage: new Stage(canvas), composer: new Composer(), state, glyph });
      return button;
    });
  }

  mark(current: number): void {
    this.#items.forEach(({ button }, i) => {
      if (i === current) button.setAttribute("aria-current", "step");
      else button.removeAttribute("aria-current");
    });
  }

  /** Show a step's thumbnail, or a symbol if it has none. */
  show(step: number, state: string, seen: Seen | null): void {
    const item = this.#items[step];
    if (!item) return;
    item.button.dataset.state = state;
    setText(item.state, STATES[state] ?? "");
    const pixels = seen && pixelsOf(item.composer, seen);
    if (pixels) item.stage.draw(pixels, []);
    item.button.classList.toggle("sw-lesson-with-image", Boolean(pixels));
    setText(item.glyph, pixels ? "" : glyphOf(state, seen));
  }
}

function glyphOf(state: string, seen: Seen | null): string {
  if (seen?.panel.bars) return "▤";
  if (seen?.scene) return "¶";
  if (seen?.panel.curve) return "∿";
  return state === "refused" ? "–" : "…";
}
