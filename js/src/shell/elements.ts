// The elements of one view. Every part has its place from the start: nothing jumps when values arrive.

export interface Elements {
  root: HTMLElement;
  title: HTMLElement;
  stage: HTMLElement;
  canvas: HTMLCanvasElement;
  cursor: HTMLElement;
  empty: HTMLElement;
  scale: HTMLElement;
  bar: HTMLCanvasElement;
  ticks: HTMLElement;
  readout: HTMLElement;
  progress: HTMLElement;
  fill: HTMLElement;
  progressText: HTMLElement;
  hold: HTMLButtonElement;
  stop: HTMLButtonElement;
  readings: HTMLElement;
  error: HTMLElement;
  message: HTMLElement;
  remedy: HTMLElement;
  notes: HTMLElement;
}

type Attributes = Record<string, string>;

function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  name: string,
  attributes: Attributes = {},
  children: (Node | string)[] = [],
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.className = `sw-${name}`;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function makeElements(): Elements {
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
  const stop = make("button", "stop", { type: "button", disabled: "" }, ["Stop"]);
  const run = make("div", "run", {}, [
    make("div", "run-state", {}, [progressText, progress]),
    make("div", "buttons", {}, [hold, stop]),
  ]);
  const readings = make("dl", "readings");
  const message = make("div", "message");
  const remedy = make("div", "remedy");
  const error = make("div", "error", { role: "alert", hidden: "" }, [message, remedy]);
  const notes = make("ul", "notes", { hidden: "" });
  const body = make("div", "body", {}, [title, stage, scale, readout, run, readings, error, notes]);
  const root = make(
    "div",
    "heatmap",
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
    progress,
    fill,
    progressText,
    hold,
    stop,
    readings,
    error,
    message,
    remedy,
    notes,
  };
}

/** Write a text only where it changed: a screen reader announces every write. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
