// The tokens of a text with their ids, as a list; tokens without a space between them touch.

import { SEPARATOR } from "../core/text.ts";
import { make } from "../shell/elements.ts";
import type { RawTokens } from "../text/flow.ts";

/** What the lesson knows of a text, besides what an explorer shows. */
export interface RawText extends RawTokens {
  /** Whether the tokenizer doesn't know each token. */
  unknown?: boolean[];
}

export function fillTokens(list: HTMLElement, raw: RawText): void {
  const { pieces = [], gaps = [], ids = [], special = [], unknown = [] } = raw;
  list.replaceChildren(
    ...pieces.map((piece, i) => {
      const joined = i > 0 && !gaps[i] && !special[i] && !special[i - 1];
      const kind = unknown[i] ? "unknown" : special[i] ? "special" : "";
      const name = `lesson-piece${joined ? " sw-joined" : ""}${kind && ` sw-${kind}`}`;
      return make("li", name, {}, [
        make("span", "lesson-letters", {}, [piece.trim() ? piece : "␣"]),
        make("span", "lesson-id", {}, [[ids[i], kind].filter((part) => part !== "").join(SEPARATOR)]),
      ]);
    }),
  );
}
