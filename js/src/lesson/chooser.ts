// The control of a step, a slider or a row of buttons, which selects one of the step's shots.

import { fill, make, setText } from "../shell/elements.ts";
import type { Content } from "./content.ts";

let made = 0;

export class Chooser {
  readonly #id = `sw-lesson-slider-${++made}`;
  readonly #label = make("label", "lesson-label", { for: this.#id });
  readonly #slider = make("input", "lesson-slider", { type: "range", min: "0", step: "1", id: this.#id });
  readonly #value = make("output", "lesson-value", { for: this.#id });
  readonly #buttons = make("div", "lesson-choices", { role: "group" });
  readonly root = make("div", "lesson-control", {}, [this.#label, this.#slider, this.#value, this.#buttons]);

  /** `choose` is called with the index of the selected shot, `release` when the pointer releases the slider. */
  constructor(
    private readonly choose: (shot: number) => void,
    private readonly release: () => void,
    private readonly life: AbortSignal,
  ) {
    const listen = { signal: life };
    this.#slider.addEventListener("input", () => this.choose(Number(this.#slider.value)), listen);
    for (const name of ["pointerup", "pointercancel"]) {
      this.#slider.addEventListener(name, () => this.release(), listen);
    }
  }

  show({ label = "", slider = false, shots = [] }: Content, shot: number): void {
    const any = shots.length > 1;
    this.root.classList.toggle("sw-off", !any);
    this.#slider.hidden = this.#value.hidden = !slider;
    this.#buttons.hidden = slider;
    if (!any) return;
    setText(this.#label, label);
    const text = shots[shot]?.label ?? "";
    if (slider) {
      this.#slider.max = String(shots.length - 1);
      this.#slider.value = String(shot);
      this.#slider.setAttribute("aria-valuetext", text);
      setText(this.#value, text);
      return;
    }
    this.#buttons.setAttribute("aria-label", label);
    const labels = shots.map((one) => one.label);
    fill(this.#buttons, labels, (name, i) => {
      const button = make("button", "lesson-choice", { type: "button" }, [name]);
      button.addEventListener("click", () => this.choose(i), { signal: this.life });
      return button;
    });
    [...this.#buttons.children].forEach((button, i) => {
      button.setAttribute("aria-pressed", String(i === shot));
    });
  }
}
