// The check-up's line of each compared model.

import type { Finding } from "../core/findings.ts";
import { CheckUpLine } from "../shell/checkup.ts";
import { make, setText } from "../shell/elements.ts";

/** One model's findings; `name` is empty if there is only one model. */
export interface RawCheckUp {
  name: string;
  findings: Finding[];
  checked: boolean;
}

export class ModelCheckUps {
  readonly root = make("div", "checkups");
  readonly #lines: { name: HTMLElement; line: CheckUpLine; root: HTMLElement }[] = [];

  show(checkUps: readonly RawCheckUp[]): void {
    while (this.#lines.length > checkUps.length) this.#lines.pop()?.root.remove();
    while (this.#lines.length < checkUps.length) {
      const name = make("div", "model-name");
      const element = make("div", "checkup");
      const root = make("div", "model-checkup", {}, [name, element]);
      this.#lines.push({ name, line: new CheckUpLine(element), root });
      this.root.append(root);
    }
    checkUps.forEach(({ name, findings, checked }, i) => {
      setText(this.#lines[i].name, name);
      this.#lines[i].line.show(findings, checked, "");
    });
  }
}
