// Draws charts as SVG in the colors of the page: a curve with axes and a marker, bars, and the numbers of a vector.

import { formatNumber } from "../core/text.ts";
import type { Bar, Curve, Vector } from "./content.ts";

const SVG = "http://www.w3.org/2000/svg";
/** The drawing's size in its own units; drawing and text are scaled to the available space. */
const SIDE = 280;
const LEFT = 78;
const RIGHT = 14;
const TOP = 14;
const BOTTOM = 52;
/** Charts of numbers are wider than high. */
export const WIDE = 1.5;
/** In a chart of numbers: the width of a label and of a number. */
const NAME = 132;
const NUMBER = 92;

/** About five round numbers within these limits. */
export function roundTicks(low: number, high: number): number[] {
  if (!(high > low)) return [low];
  const rough = (high - low) / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 2.5, 5, 10].find((k) => unit * k >= rough * 0.999) ?? 10);
  const ticks: number[] = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(k * step || 0);
  return ticks;
}

/** The curve's value at `at`, interpolated linearly between its points. */
export function valueAt({ x, y }: Pick<Curve, "x" | "y">, at: number): number {
  const next = x.findIndex((point) => point >= at);
  if (next === 0) return y[0];
  if (next < 0) return y[y.length - 1];
  const t = (at - x[next - 1]) / (x[next] - x[next - 1]);
  return y[next - 1] + t * (y[next] - y[next - 1]);
}

export function drawCurve(curve: Curve, label: string): SVGSVGElement {
  const low = Math.min(0, ...curve.y);
  const high = Math.max(...curve.y, low + 1e-12);
  const first = curve.x[0];
  const span = curve.x[curve.x.length - 1] - first || 1;
  const across = (x: number) => LEFT + ((x - first) / span) * (SIDE - LEFT - RIGHT);
  const up = (y: number) => SIDE - BOTTOM - ((y - low) / (high - low)) * (SIDE - BOTTOM - TOP);
  const svg = element("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img", "aria-label": label });
  const bottom = SIDE - BOTTOM;
  for (const tick of roundTicks(low, high)) {
    svg.append(line("sw-lesson-grid", LEFT, up(tick), SIDE - RIGHT, up(tick)));
    svg.append(text(formatNumber(tick), LEFT - 7, up(tick) + 6, "end"));
  }
  for (const tick of [0, 0.5, 1]) {
    const x = first + tick * span;
    svg.append(text(formatNumber(x), across(x), bottom + 22, "middle"));
  }
  svg.append(text(curve.across, (LEFT + SIDE - RIGHT) / 2, SIDE - 8, "middle"));
  const name = text(curve.up, 0, 0, "middle");
  name.setAttribute("transform", `translate(18 ${(TOP + bottom) / 2}) rotate(-90)`);
  svg.append(name);
  if (curve.mark) {
    const x = across(curve.mark.at);
    svg.append(line("sw-lesson-mark", x, TOP, x, bottom));
    const right = x > SIDE / 2;
    svg.append(text(curve.mark.label, x + (right ? -6 : 6), bottom - 8, right ? "end" : "start"));
  }
  const d = curve.x
    .map((x, i) => `${i ? "L" : "M"}${across(x).toFixed(2)} ${up(curve.y[i]).toFixed(2)}`)
    .join("");
  svg.append(element("path", { class: "sw-lesson-line", d }));
  const dot = { class: "sw-lesson-dot", cx: across(curve.at), cy: up(valueAt(curve, curve.at)), r: 8 };
  svg.append(element("circle", dot));
  return svg;
}

export function drawBars(bars: readonly Bar[], chosen: number, label: string): SVGSVGElement {
  const svg = element("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img", "aria-label": label });
  const pitch = Math.min(56, SIDE / bars.length);
  bars.forEach(({ label: name, share }, i) => {
    const top = i * pitch;
    const mark = i === chosen ? "sw-lesson-bar sw-lesson-chosen" : "sw-lesson-bar";
    const width = Math.max(1, share * (SIDE - 100));
    svg.append(text(shortened(name), 0, top + 21, "start", i === chosen));
    svg.append(element("rect", { class: mark, x: 0, y: top + 28, width, height: pitch - 36 }));
    svg.append(
      text(`${(100 * share).toFixed(1)}%`, width + 8, top + 28 + (pitch - 36) / 2 + 6, "start", i === chosen),
    );
  });
  return svg;
}

/** Bars to both sides of zero, each in one line with its label and its number. */
export function drawValues(bars: readonly Bar[], chosen: number, caption: string): SVGSVGElement {
  const width = WIDE * SIDE;
  const label = `${caption}: ${bars.map((bar) => `${bar.label} ${bar.text}`).join(", ")}`;
  const svg = element("svg", { viewBox: `0 0 ${width} ${SIDE}`, role: "img", "aria-label": label });
  const signed = bars.some(({ share }) => share < 0);
  const room = width - NAME - NUMBER - 10;
  const zero = NAME + 8 + (signed ? room / 2 : 0);
  const pitch = Math.min(44, SIDE / bars.length);
  bars.forEach(({ label: name, share, text: words = "" }, i) => {
    const middle = (i + 0.5) * pitch;
    const strong = i === chosen;
    const length = Math.max(1, Math.abs(share) * room * (signed ? 0.5 : 1));
    const x = share < 0 ? zero - length : zero;
    const mark = strong ? "sw-lesson-bar sw-lesson-chosen" : "sw-lesson-bar";
    svg.append(text(shortened(name, 14), NAME, middle + 6, "end", strong));
    svg.append(
      element("rect", { class: mark, x, y: middle - pitch / 2 + 3, width: length, height: pitch - 6 }),
    );
    svg.append(text(words, width, middle + 6, "end", strong));
  });
  svg.append(line("sw-lesson-axis", zero, 0, zero, pitch * bars.length));
  return svg;
}

/** The numbers of a vector as columns, above and below zero. */
export function drawVector({ values, names, across: label }: Vector, caption: string): SVGSVGElement {
  const width = WIDE * SIDE;
  const words = values.map((value, i) => `${names[i]} ${formatNumber(value)}`);
  const svg = element("svg", {
    viewBox: `0 0 ${width} ${SIDE}`,
    role: "img",
    "aria-label": `${caption}: ${words.join(", ")}`,
  });
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values, low + 1e-12);
  const bottom = SIDE - 34;
  const up = (value: number) => bottom - ((value - low) / (high - low)) * (bottom - TOP);
  for (const tick of roundTicks(low, high)) {
    svg.append(line("sw-lesson-grid", LEFT, up(tick), width, up(tick)));
    svg.append(text(formatNumber(tick), LEFT - 7, up(tick) + 6, "end"));
  }
  const pitch = (width - LEFT) / values.length;
  values.forEach((value, i) => {
    const y = Math.min(up(0), up(value));
    const height = Math.max(1, Math.abs(up(value) - up(0)));
    const mark = value < 0 ? "sw-lesson-bar sw-lesson-below" : "sw-lesson-bar sw-lesson-above";
    const column = element("rect", {
      class: mark,
      x: LEFT + (i + 0.15) * pitch,
      y,
      width: 0.7 * pitch,
      height,
    });
    const title = document.createElementNS(SVG, "title");
    title.textContent = words[i];
    column.append(title);
    svg.append(column);
  });
  svg.append(line("sw-lesson-axis", LEFT, up(0), width, up(0)));
  svg.append(text(label, (LEFT + width) / 2, SIDE - 8, "middle"));
  return svg;
}

/** A name, shortened to a maximum length. */
export function shortened(name: string, most = 26): string {
  return name.length <= most ? name : `${name.slice(0, most - 1)}…`;
}

function element<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | number>,
): SVGElementTagNameMap[K] {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}

function line(name: string, x1: number, y1: number, x2: number, y2: number): SVGLineElement {
  return element("line", { class: name, x1, y1, x2, y2 });
}

function text(words: string, x: number, y: number, anchor: string, strong = false): SVGTextElement {
  const made = element("text", { x, y, "text-anchor": anchor, class: strong ? "sw-lesson-strong" : "" });
  made.textContent = words;
  return made;
}
