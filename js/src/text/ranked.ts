// The strongest tokens of a text as bars, the strongest first.

import type { Frame, Pixels } from "../core/frame.ts";
import { codeValue } from "../core/frame.ts";
import { formatNumber } from "../core/text.ts";
import { make, setText } from "../shell/elements.ts";

const MOST = 8;

interface Row {
  root: HTMLElement;
  name: HTMLElement;
  bar: HTMLElement;
  value: HTMLElement;
}

export class RankedTokens {
  readonly root = make("ol", "ranked", { "aria-label": "The strongest tokens" });
  #rows: Row[] = [];
  #frame: Frame | null = null;
  #order: number[] = [];
  #values: number[] = [];

  /**
   * @param pieces the tokens
   * @param colors one pixel for each token
   */
  show(frame: Frame, pieces: string[], colors: Pixels): void {
    if (frame !== this.#frame) this.#rank(frame);
    const { data } = colors;
    this.#order.forEach((index, row) => {
      const { style } = this.#rows[row].bar;
      const color = `rgb(${data.subarray(4 * index, 4 * index + 3).join(", ")})`;
      if (style.backgroundColor !== color) style.backgroundColor = color;
      setText(this.#rows[row].name, pieces[index].trim() ? pieces[index] : JSON.stringify(pieces[index]));
    });
  }

  /** Show nothing until the next frame. */
  clear(): void {
    this.#frame = null;
    this.#order = [];
    this.#rows = [];
    this.root.replaceChildren();
  }

  #rank(frame: Frame): void {
    this.#frame = frame;
    this.#values = Array.from(frame.codes, (code) => codeValue(frame, code));
    const sizes = this.#values.map(Math.abs);
    const order = sizes.map((_, index) => index).sort((a, b) => sizes[b] - sizes[a] || a - b);
    this.#order = order.slice(0, MOST).filter((index) => sizes[index] > 0);
    while (this.#rows.length > this.#order.length) this.#rows.pop()?.root.remove();
    while (this.#rows.length < this.#order.length) this.#add();
    const largest = sizes[this.#order[0]] ?? 1;
    this.root.classList.toggle("sw-signed", frame.signed);
    this.#order.forEach((index, row) => {
      const { bar, value } = this.#rows[row];
      setText(value, formatNumber(this.#values[index]));
      const share = (100 * sizes[index]) / largest / (frame.signed ? 2 : 1);
      const start = !frame.signed ? 0 : this.#values[index] < 0 ? 50 - share : 50;
      bar.style.left = `${start}%`;
      bar.style.width = `${share}%`;
    });
  }

  #add(): void {
    const name = make("span", "ranked-name");
    const bar = make("span", "ranked-bar");
    const value = make("span", "ranked-value");
    const root = make("li", "ranked-row", {}, [name, make("span", "ranked-track", {}, [bar]), value]);
    this.root.append(root);
    this.#rows.push({ root, name, bar, value });
  }
}
