// The elements of one view. All of them are there from the start: nothing jumps when values arrive.

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
  // Both texts lie on top of each other, so that the button is always as wide as the wider one.
  const copy = make(
    "button",
    "copy",
    { type: "button", disabled: "", title: "Python that repeats this map, bit for bit" },
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
    "aria-label": "Python that repeats this map",
  });
  const byHand = make("div", "by-hand", { hidden: "" }, [
    "The browser lets nothing be copied from here. Copy it by hand; Escape closes it.",
    byHandText,
  ]);
  const readings = make("dl", "readings");
  const checkup = make("div", "checkup");
  const message = make("div", "message");
  const remedy = make("div", "remedy");
  const error = make("div", "error", { role: "alert", hidden: "" }, [message, remedy]);
  const notes = make("ul", "notes", { hidden: "" });
  // The check-up comes before what comes and goes: its line stays where it is.
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

/** A disabled button loses the focus to the notebook, whose one-letter commands would then be live. */
export function setDisabled(elements: Elements, button: HTMLButtonElement, disabled: boolean): void {
  const focused = document.activeElement === button;
  button.disabled = disabled;
  if (focused && disabled) keepFocus(elements);
}

/** Put the focus where it stays inside the view: on the image, or on the view itself where there is none. */
export function keepFocus({ root, canvas }: Elements): void {
  const plain = root.classList.contains("sw-plain");
  if (plain) root.tabIndex = -1; // not before: a click on the words would take the focus from the notebook
  (plain ? root : canvas).focus({ preventScroll: true });
}
