// The color bars of a grid, one for each scale in use.

import { barColors, barTicks } from "../core/bar.ts";
import { type Display, lookOf } from "../core/display.ts";
import { type Ends, highest, limitsOf } from "../core/scale.ts";
import { drawBar } from "../shell/bar.ts";
import { make, setText } from "../shell/elements.ts";

/** A scale with the name of its maps; without ends, each map has its own. */
export interface Scale {
  readonly name: string;
  readonly signed: boolean;
  readonly ends: Ends | null;
}

export class Bars {
  readonly root = make("div", "bars", { role: "group", "aria-label": "Color scales" });
  readonly #shown: { root: HTMLElement; name: HTMLElement; bar: HTMLCanvasElement; ticks: HTMLElement }[] =
    [];

  show(scales: readonly Scale[], display: Display): void {
    while (this.#shown.length > scales.length) this.#shown.pop()?.root.remove();
    while (this.#shown.length < scales.length) {
      const name = make("div", "bar-name");
      const bar = make("canvas", "bar", { "aria-hidden": "true", width: "256", height: "1" });
      const ticks = make("div", "ticks");
      const root = make("div", "one-bar", {}, [name, bar, ticks]);
      this.#shown.push({ root, name, bar, ticks });
      this.root.append(root);
    }
    scales.forEach(({ name, signed, ends }, i) => {
      const shown = this.#shown[i];
      const high = ends && ends[1] > 0 ? ends[1] : 1;
      const map = { low: signed ? -high : 0, high, signed };
      const limits = ends ? limitsOf(map, ends) : ([0, highest(signed)] as const);
      const row = barColors(signed, limits, lookOf(display, signed));
      const words = signed ? ["against", "", "for"] : ["weakest", "", "strongest"];
      const ticks = barTicks(map, limits, 3).map((tick, k) => (ends ? tick : { ...tick, label: words[k] }));
      setText(shown.name, name);
      shown.name.title = name;
      drawBar(shown.bar, shown.ticks, row, ticks);
    });
  }
}
