// The elements of one view. All exist from the start, so that nothing jumps when values arrive.

import { make } from "../shell/elements.ts";

export function makeElements() {
  const title = make("div", "title");
  const canvas = make("canvas", "canvas", { tabindex: "0", role: "img", "aria-label": "Saliency map" });
  const cursor = make("div", "cursor", { hidden: "" });
  const empty = make("div", "empty", { hidden: "" });
  const stage = make("div", "stage", {}, [canvas, cursor, empty]);
  const bar = make("canvas", "bar", { "aria-hidden": "true" });
  bar.width = 256;
  bar.height = 1;
  const ticks = make("div", "ticks");
  const scale = make("div", "scale", { role: "group", "aria-label": "Color scale" }, [bar, ticks]);
  const readout = make("div", "readout", { "aria-live": "polite" });
  const fill = make("div", "fill");
  const progress = make("div", "progress", { role: "progressbar", "aria-valuemin": "0" }, [fill]);
  const progressText = make("div", "progress-text");
  const hold = make("button", "hold", { type: "button", "aria-pressed": "false" }, [
    "Hold to see the original",
  ]);
  // Both texts overlap, so that the button is always as wide as the wider one.
  const copy = make(
    "button",
    "copy",
    { type: "button", disabled: "", title: "Python code that reproduces this map exactly" },
    [make("span", "copy-ask", {}, ["Copy code"]), make("span", "copy-said", {}, ["Copied"])],
  );
  const stop = make("button", "stop", { type: "button", disabled: "" }, ["Stop"]);
  const run = make("div", "run", {}, [
    make("div", "run-state", {}, [progressText, progress]),
    make("div", "buttons", {}, [hold, stop, copy]),
  ]);
  const announcement = make("div", "unseen", { "aria-live": "polite" });
  const byHandText = make("textarea", "by-hand-text", {
    readonly: "",
    rows: "6",
    spellcheck: "false",
    "aria-label": "Python code that reproduces this map",
  });
  const byHand = make("div", "by-hand", { hidden: "" }, [
    "The browser blocked copying. Copy the code manually; Escape closes this box.",
    byHandText,
  ]);
  const readings = make("dl", "readings");
  const checkup = make("div", "checkup");
  const message = make("div", "message");
  const remedy = make("div", "remedy");
  const error = make("div", "error", { role: "alert", hidden: "" }, [message, remedy]);
  const notes = make("ul", "notes", { hidden: "" });
  // The check-up comes before the elements that appear and disappear, so that its line stays in place.
  const parts = [title, stage, scale, readout, run, byHand, readings, checkup, error, notes, announcement];
  const body = make("div", "body", {}, parts);
  const root = make(
    "div",
    "view sw-heatmap",
    { role: "group", "aria-label": "Saliency map", "data-lm-suppress-shortcuts": "true" },
    [body],
  );
  return {
    root,
    title,
    stage,
    canvas,
    cursor,
    empty,
    scale,
    bar,
    ticks,
    readout,
    run,
    progress,
    fill,
    progressText,
    hold,
    copy,
    stop,
    announcement,
    byHand,
    byHandText,
    readings,
    checkup,
    error,
    message,
    remedy,
    notes,
  };
}

export type Elements = ReturnType<typeof makeElements>;

/** Enable or disable a button; if it would lose focus to the notebook and its one-letter commands, move the focus. */
export function setDisabled(elements: Elements, button: HTMLButtonElement, disabled: boolean): void {
  const focused = document.activeElement === button;
  button.disabled = disabled;
  if (focused && disabled) keepFocus(elements);
}

/** Keep the focus inside the view: on the image, or on the view itself if it has no image. */
export function keepFocus({ root, canvas }: Elements): void {
  const plain = root.classList.contains("sw-plain");
  if (plain) root.tabIndex = -1; // not earlier, or a click on the text would take the focus from the notebook
  (plain ? root : canvas).focus({ preventScroll: true });
}
