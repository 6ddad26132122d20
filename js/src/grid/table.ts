// Lays out the cells of a grid in rows and columns with headings.

import { make } from "../shell/elements.ts";
import type { GridCell } from "./cell.ts";

export class Table {
  readonly root = make("div", "table", { role: "grid", "aria-label": "Saliency maps side by side" });
  readonly scroller = make("div", "scroller", {}, [this.root]);
  #columns = 1;

  /** Lay out headings and cells, row by row. */
  lay(rows: readonly string[], columns: readonly string[], cells: readonly GridCell[]): void {
    const named = rows.some(Boolean);
    const lines: HTMLElement[] = [];
    if (columns.some(Boolean)) {
      const corner = named ? [make("div", "corner", { role: "columnheader" })] : [];
      lines.push(line([...corner, ...columns.map((text) => heading(text, "column"))]));
    }
    rows.forEach((text, r) => {
      const inRow = cells.filter((cell) => Math.floor(cell.index / columns.length) === r);
      lines.push(line([...(named ? [heading(text, "row")] : []), ...inRow.map((cell) => cell.root)]));
    });
    this.root.replaceChildren(...lines);
    this.root.classList.toggle("sw-unnamed", !named);
    this.#columns = Math.max(1, columns.length);
    this.root.style.setProperty("--sw-columns", String(this.#columns));
  }

  /** The width of a map, in pixels, at which all columns are visible. */
  get room(): number {
    const [first] = this.root.getElementsByClassName("sw-row-heading");
    const names = first ? first.clientWidth + 6 : 0;
    return Math.floor((this.scroller.clientWidth - names - 8) / this.#columns) - 6;
  }
}

function line(parts: HTMLElement[]): HTMLElement {
  return make("div", "row", { role: "row" }, parts);
}

function heading(text: string, of: "row" | "column"): HTMLElement {
  const words = make("span", "heading-words", {}, [text]);
  return make("div", `${of}-heading`, { role: `${of}header`, title: text }, [words]);
}
