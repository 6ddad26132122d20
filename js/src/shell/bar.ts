// A color bar on the page, with its labels.

import type { Tick } from "../core/bar.ts";
import { setText } from "./elements.ts";

/** Draw the bar. Existing labels are changed in place, so that a text selection survives. */
export function drawBar(
  bar: HTMLCanvasElement,
  labels: HTMLElement,
  row: Uint8ClampedArray<ArrayBuffer>,
  ticks: readonly Tick[],
): void {
  bar.getContext("2d")?.putImageData(new ImageData(row, row.length / 4, 1), 0, 0);
  while (labels.children.length > ticks.length) labels.lastChild?.remove();
  while (labels.children.length < ticks.length) labels.append(document.createElement("span"));
  ticks.forEach((tick, i) => {
    const label = labels.children[i] as HTMLElement;
    setText(label, tick.label);
    label.style.setProperty("--sw-at", String(tick.position));
  });
}
