// The recorded settings: sliders and menus that select among the results computed when the page was saved.

import { Recording } from "../core/recording.ts";
import { make } from "../shell/elements.ts";
import type { Archive, Traits } from "./archive.ts";
import type { PageModel } from "./models.ts";
import { menu, row, slider } from "./settings.ts";

export class Recorded {
  readonly rows: HTMLElement[];
  readonly #recording: Recording;
  #generation: number;

  /** @param changed called when another entry is shown */
  constructor(
    private readonly archive: Archive,
    private readonly models: readonly PageModel[],
    private readonly changed: () => void,
  ) {
    this.#recording = new Recording(archive.axes);
    // Views accept only newer frames, so selected entries are numbered after all saved ones.
    const saved = [...archive.models, ...Object.values(archive.states).flatMap(Object.values)];
    this.#generation = Math.max(0, ...saved.map(({ frame }) => Number((frame as Traits)?.generation) || 0));
    this.rows = archive.axes.map((axis) => {
      const { name, label, help, labels, begin, ordered } = axis;
      const said = make("output", "page-value");
      const control = ordered ? slider(label, 0, labels.length - 1, 1, begin) : menu(label, labels, begin);
      const show = () => {
        const text = labels[this.#recording.at(name) ?? 0];
        said.textContent = text;
        control.setAttribute("aria-valuetext", text);
      };
      control.addEventListener(ordered ? "input" : "change", () => {
        this.#recording.choose(
          name,
          control instanceof HTMLSelectElement ? control.selectedIndex : Number(control.value),
        );
        show();
        this.#show();
      });
      show();
      return ordered ? row(name, label, help, control, said) : row(name, label, help, control);
    });
    this.#mark();
  }

  /** The explained class, or null if there is none. */
  get target(): number | null {
    return this.archive.targets[this.#recording.at("target") ?? 0] ?? null;
  }

  #show(): void {
    this.#mark();
    const state = this.archive.states[this.#recording.key];
    if (!state) return;
    this.#generation++;
    for (const [index, traits] of Object.entries(state)) {
      const changes: Traits = { ...traits };
      for (const name of ["frame", "status"]) {
        if (name in traits) changes[name] = { ...(traits[name] as Traits), generation: this.#generation };
      }
      this.models[Number(index)].set(changes);
    }
    this.changed();
  }

  /** Disable the axes that don't apply to the current selection. */
  #mark(): void {
    this.#recording.axes.forEach((axis, i) => {
      const off = !this.#recording.matters(axis);
      this.rows[i].classList.toggle("sw-page-off", off);
      for (const control of this.rows[i].querySelectorAll("input, select")) {
        (control as HTMLInputElement).disabled = off;
      }
    });
  }
}
