// A color bar on the page, with its labels.

import type { Tick } from "../core/bar.ts";
import { setText } from "./elements.ts";

/** Labels that are there already are kept: a reader's selection survives. */
export function drawBar(
  bar: HTMLCanvasElement,
  place: HTMLElement,
  row: Uint8ClampedArray<ArrayBuffer>,
  ticks: readonly Tick[],
): void {
  bar.getContext("2d")?.putImageData(new ImageData(row, row.length / 4, 1), 0, 0);
  while (place.children.length > ticks.length) place.lastChild?.remove();
  while (place.children.length < ticks.length) place.append(document.createElement("span"));
  ticks.forEach((tick, i) => {
    const label = place.children[i] as HTMLElement;
    setText(label, tick.label);
    label.style.setProperty("--sw-at", String(tick.position));
  });
}
