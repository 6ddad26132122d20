// What-if tools of a text: replace, mask or delete the chosen tokens, or edit the whole text.

import type { SceneHost } from "../heatmap/scene.ts";
import { make } from "../shell/elements.ts";

/** What can be edited of a text. */
export interface RawEdits {
  /** The text; missing if it is unknown, as that of ids is. */
  text?: string;
  /** Whether it differs from the first one. */
  edited?: boolean;
  /** Whether tokens can be masked. */
  masks?: boolean;
  /** Whether each token stands for a part of the text. */
  editable?: boolean[];
}

type Edit = "text" | "replace" | "mask" | "delete" | "restore";

const EDITS: readonly (readonly [Edit, string, string])[] = [
  ["text", "Edit text", "Edit the whole text"],
  ["replace", "Replace", "Type another word for the chosen tokens; by key: F2"],
  ["mask", "Mask", "Put the mask token in place of each chosen token"],
  ["delete", "Delete", "Delete the chosen tokens; by key: Delete"],
  ["restore", "Restore", "Return to the first text"],
];

export class EditTools {
  readonly root: HTMLElement;
  readonly #buttons = new Map<Edit, HTMLButtonElement>();
  readonly #field = make("textarea", "edit-field", { rows: "2", spellcheck: "false" });
  readonly #apply = make("button", "tool", { type: "submit" }, ["Apply"]);
  readonly #form: HTMLFormElement;
  #raw: RawEdits = {};
  #chosen: number[] = [];
  #pieces: string[] = [];
  #typing: Edit = "text";

  /** @param leave called when the field is closed, to return the focus to the text */
  constructor(
    private readonly host: SceneHost,
    private readonly leave: () => void,
  ) {
    const listen = { signal: host.life };
    for (const [edit, label, title] of EDITS) {
      const button = make("button", "tool", { type: "button", title }, [label]);
      button.addEventListener("click", () => this.begin(edit), listen);
      this.#buttons.set(edit, button);
    }
    const cancel = make("button", "tool", { type: "button" }, ["Cancel"]);
    cancel.addEventListener("click", () => this.#close(), listen);
    this.#form = make("form", "edit-form", { hidden: "" }, [this.#field, this.#apply, cancel]);
    this.#form.addEventListener("submit", (event) => this.#submit(event), listen);
    this.#field.addEventListener("keydown", (event) => this.#key(event), listen);
    this.root = make("div", "edit", { hidden: "" }, [
      make("div", "tools", { role: "toolbar", "aria-label": "What if" }, [
        make("span", "edit-title", {}, ["What if"]),
        ...this.#buttons.values(),
      ]),
      this.#form,
    ]);
    this.#show();
  }

  /** @param pieces the tokens, each with the text before it */
  load(raw: RawEdits, pieces: string[]): void {
    if (raw.text !== this.#raw.text) this.#form.hidden = true;
    this.#raw = raw;
    this.#pieces = pieces;
    this.root.hidden = raw.text === undefined;
    this.#show();
  }

  /** Choose the tokens to edit, in rising order. */
  choose(tokens: number[]): void {
    this.#chosen = tokens;
    this.#show();
  }

  /** Edit at once, or open the field; returns false if there is nothing to edit. */
  begin(edit: Edit): boolean {
    if (this.root.hidden || this.#buttons.get(edit)?.disabled !== false) return false;
    if (edit !== "text" && edit !== "replace") {
      this.#send(edit);
      return true;
    }
    this.#typing = edit;
    const whole = edit === "text";
    this.#field.value = whole
      ? (this.#raw.text ?? "")
      : this.#chosen
          .map((k) => this.#pieces[k])
          .join("")
          .trim();
    this.#field.rows = whole ? 3 : 1;
    this.#field.setAttribute("aria-label", whole ? "The text" : "The text in place of the chosen tokens");
    this.#form.hidden = false;
    this.#field.focus();
    this.#field.select();
    return true;
  }

  #show(): void {
    const { edited = false, masks = false, editable = [] } = this.#raw;
    const chosen = this.#chosen;
    const some = chosen.length > 0 && chosen.every((k) => editable[k]);
    const enabled: Record<Edit, boolean> = {
      text: true,
      replace: some && (chosen.at(-1) ?? 0) - (chosen[0] ?? 0) === chosen.length - 1,
      mask: some && masks,
      delete: some,
      restore: edited,
    };
    for (const [edit, button] of this.#buttons) button.disabled = !enabled[edit];
    const mask = this.#buttons.get("mask");
    if (mask) mask.hidden = !masks;
  }

  #key(event: KeyboardEvent): void {
    event.stopPropagation();
    if (event.key === "Escape") this.#close();
    else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.#submit(event);
  }

  #submit(event: Event): void {
    event.preventDefault();
    const text = this.#field.value;
    this.#close();
    this.#send(this.#typing, text);
  }

  #close(): void {
    this.#form.hidden = true;
    this.leave();
  }

  #send(edit: Edit, text = ""): void {
    this.host.send({ edit, text, tokens: this.#chosen });
  }
}
