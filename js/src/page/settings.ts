// The display settings as native inputs, linked to the display models of the page.

import { make } from "../shell/elements.ts";
import type { Setting } from "./archive.ts";
import type { PageModel } from "./models.ts";

/** A labeled row for a control and its value, with the label also set for screen readers. */
export function row(name: string, label: string, help: string, ...parts: HTMLElement[]): HTMLElement {
  const words = make("span", "page-label", { title: help }, [label]);
  return make("div", "page-row", { "data-name": name, role: "group", "aria-label": label }, [
    words,
    ...parts,
  ]);
}

export function menu(label: string, options: readonly string[], at: number): HTMLSelectElement {
  const choices = options.map((text) => make("option", "page-option", {}, [text]));
  const select = make("select", "page-menu", { "aria-label": label }, choices);
  select.selectedIndex = at;
  return select;
}

export function slider(label: string, low: number, high: number, step: number, at: number): HTMLInputElement {
  const made = make("input", "page-slider", { type: "range", "aria-label": label });
  // The order matters: the browser clamps the value to the limits set so far.
  Object.assign(made, { min: String(low), max: String(high), step: String(step), value: String(at) });
  return made;
}

/** One row per setting. A change applies to all displays. */
export function settingRows(settings: readonly Setting[], displays: readonly PageModel[]): HTMLElement[] {
  const [first] = displays;
  if (!first) return [];
  const write = (name: string, value: unknown) => {
    for (const display of displays) display.set(name, value);
  };
  return settings.map((setting) => {
    const { name, label, help, kind, low, high, unit, options } = setting;
    const value = first.get(name);
    if (kind === "choice") {
      const select = menu(label, options, Number(value));
      select.addEventListener("change", () => write(name, select.selectedIndex));
      return row(name, label, help, select);
    }
    const [from, to] = [low ?? 0, high ?? 1];
    const said = make("output", "page-value");
    if (kind === "range") {
      const pair = value as [number, number];
      const ends = [`${label}, from`, `${label}, to`].map((text, i) => slider(text, from, to, 0.5, pair[i]));
      const say = () => {
        said.textContent = `${ends.map((end) => Number(end.value).toFixed(1)).join(" – ")}${unit && ` ${unit}`}`;
      };
      ends.forEach((end, i) => {
        end.addEventListener("input", () => {
          // An end that reaches the other one pushes it along.
          const other = ends[1 - i];
          if (Number(ends[0].value) > Number(ends[1].value)) other.value = end.value;
          say();
          write(name, [Number(ends[0].value), Number(ends[1].value)]);
        });
      });
      say();
      return row(name, label, help, make("span", "page-ends", {}, ends), said);
    }
    // The step is a power of ten, so that the default lies on a step and can be selected again.
    const handle = slider(label, from, to, 10 ** Math.floor(Math.log10((to - from) / 50)), Number(value));
    const say = () => {
      said.textContent = `${Number(handle.value).toFixed(2)}${unit && ` ${unit}`}`;
    };
    handle.addEventListener("input", () => {
      say();
      write(name, Number(handle.value));
    });
    say();
    return row(name, label, help, handle, said);
  });
}
