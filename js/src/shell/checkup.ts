// The check-up's line, which expands to its findings. Its space is reserved before the first finding.

import { ABOUT_OTHERS, checkUp, type Finding, type Item } from "../core/findings.ts";
import { fill, make } from "./elements.ts";
import { mark } from "./marks.ts";
import { reserveHeight } from "./reserve.ts";

export class CheckUpLine {
  readonly #summary = make("summary", "checkup-line");
  readonly #list = make("div", "findings", { role: "group", "aria-label": "Findings", tabindex: "0" });
  readonly #details = make("details", "checkup-details", { hidden: "" }, [this.#summary, this.#list]);
  readonly #clear = make("div", "checkup-line", { hidden: "" });
  readonly reserve: () => void;

  constructor(element: HTMLElement) {
    element.replaceChildren(this.#clear, this.#details);
    this.reserve = reserveHeight(this.#summary);
  }

  /** Show the findings. The line stays open or closed as the user left it. */
  show(findings: readonly Finding[], checked: boolean, method: string): void {
    const { line, mark: shape, relevant, others } = checkUp(findings, method);
    const any = relevant.length + others.length > 0;
    this.#clear.hidden = any || !checked;
    this.#details.hidden = !any || !checked;
    for (const element of [this.#clear, this.#summary]) {
      fill(element, [{ line, shape }], () => {
        const words = make("span", "checkup-words", {}, [line]);
        return make("span", "checkup-summary", {}, [mark(shape), words]);
      });
    }
    const parts = [...relevant, ...(others.length > 0 ? [null, ...others] : [])];
    fill(this.#list, parts, (part) => (part ? finding(part) : heading()));
    this.reserve();
  }
}

function heading(): HTMLElement {
  return make("div", "findings-heading", {}, [ABOUT_OTHERS]);
}

function finding({ severity, label, what, about, places, remedy }: Item): HTMLElement {
  const first = make("div", "finding-what", {}, [make("b", "finding-label", {}, [`${label}.`]), ` ${what}`]);
  const second = make("div", "finding-about", places ? { title: places } : {}, [about]);
  const words = make("div", "finding-words", {}, [first, second]);
  if (remedy) words.append(make("div", "finding-remedy", {}, [remedy]));
  return make("div", "finding", { "data-severity": severity }, [mark(severity), words]);
}
