// Small icons, each next to a text, that differ in shape as well as color. The style sheet defines the colors.

import type { Severity } from "../core/findings.ts";

const SVG = "http://www.w3.org/2000/svg";

/** A filled outline and the lines on top of it, in a box of 16 by 16. */
const SHAPES: Record<Severity | "fine", { outline: string; lines: string }> = {
  wrong: { outline: "M5 .8h6L15.2 5v6L11 15.2H5L.8 11V5z", lines: "M5.3 5.3l5.4 5.4m0-5.4l-5.4 5.4" },
  caution: { outline: "M8 1.2 15.6 14.8H.4z", lines: "M8 5.8v4.4m0 2.2v.3" },
  slow: { outline: "M8 .8a7.2 7.2 0 1 0 .01 0z", lines: "M8 4v4.2l2.8 2" },
  fine: { outline: "", lines: "M2.5 8.6l3.6 3.6 7.4-8" },
};

export function mark(name: Severity | "fine"): SVGElement {
  return drawn(name, SHAPES[name]);
}

/** A padlock; the style sheet opens its shackle. */
export function lockMark(): SVGElement {
  return drawn("lock", { outline: "M3 7.4h10v7.4H3z", lines: "M5 7.4V4.8a3 3 0 0 1 6 0v2.6" });
}

function drawn(name: string, { outline, lines }: { outline: string; lines: string }): SVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `sw-mark sw-mark-${name}`);
  svg.setAttribute("aria-hidden", "true");
  for (const [part, d] of [
    ["outline", outline],
    ["lines", lines],
  ]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", `sw-mark-${part}`);
    path.setAttribute("d", d!);
    svg.append(path);
  }
  return svg;
}
