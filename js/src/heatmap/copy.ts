// Copies the code of the displayed map, in the page and without the kernel.

import { setText } from "../shell/elements.ts";
import { type Elements, keepFocus, setDisabled } from "./elements.ts";

const SAID_FOR = 1500;

export class CopyButton {
  #code = "";
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly elements: Elements,
    private readonly life: AbortSignal,
  ) {
    const { copy, byHand, byHandText } = elements;
    const listen = { signal: life };
    copy.addEventListener("click", () => this.#copy(), listen);
    byHandText.addEventListener("copy", () => this.#copiedByHand(), listen);
    byHand.addEventListener("keydown", (event) => this.#key(event), listen);
    life.addEventListener("abort", () => clearTimeout(this.#timer));
  }

  show(code: string): void {
    setDisabled(this.elements, this.elements.copy, !code);
    if (code !== this.#code) this.#close();
    this.#code = code;
  }

  async #copy(): Promise<void> {
    const code = this.#code;
    const written = await write(code, this.elements);
    if (this.life.aborted) return;
    if (written) {
      this.#close();
      this.#say();
    } else if (code === this.#code) {
      this.#offer();
    }
  }

  #say(): void {
    const { copy, announcement } = this.elements;
    copy.classList.add("sw-said");
    setText(announcement, "Copied");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#unsay(), SAID_FOR);
  }

  #unsay(): void {
    const { copy, announcement } = this.elements;
    clearTimeout(this.#timer);
    copy.classList.remove("sw-said");
    setText(announcement, "");
  }

  // -- manual copying, if the page may not write to the clipboard ----------------------------------------

  #offer(): void {
    const { byHand, byHandText } = this.elements;
    this.#unsay();
    byHand.hidden = false;
    byHandText.value = this.#code;
    byHandText.focus();
    byHandText.select();
  }

  #key(event: KeyboardEvent): void {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    this.#close();
  }

  #copiedByHand(): void {
    const { selectionStart, selectionEnd, value } = this.elements.byHandText;
    // The browser copies the text only after this event.
    if (selectionEnd - selectionStart === value.length) setTimeout(() => this.#close());
    this.#say();
  }

  #close(): void {
    const { root, byHand, byHandText, copy } = this.elements;
    const focused = byHand.contains(root.ownerDocument.activeElement);
    byHand.hidden = true;
    byHandText.value = "";
    if (!focused) return;
    if (copy.disabled) keepFocus(this.elements);
    else copy.focus({ preventScroll: true });
  }
}

/** Write to the clipboard; returns false if both of the browser's methods fail. */
async function write(text: string, elements: Elements): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text); // missing on pages served without https
    return true;
  } catch {
    return writeThroughSelection(text, elements);
  }
}

function writeThroughSelection(text: string, { root, copy }: Elements): boolean {
  const area = document.createElement("textarea");
  area.className = "sw-unseen";
  area.value = text;
  root.append(area);
  area.focus({ preventScroll: true });
  area.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    area.remove();
    copy.focus({ preventScroll: true });
  }
}
