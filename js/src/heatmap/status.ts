// The texts below the image: progress, readings, errors and notes.

import { isWhole, progressParts, SEPARATOR, type Status } from "../core/text.ts";
import { fill, setText } from "../shell/elements.ts";
import { type Elements, setDisabled } from "./elements.ts";

/** A problem of the view itself, shown in the same place as an error from the kernel. */
export interface Problem {
  message: string;
  remedy: string;
}

export function showStatus(elements: Elements, status: Status, problem: Problem | null): void {
  const { root, title, stop, error, message, remedy } = elements;
  const state = status.state ?? "idle";
  root.dataset.state = state;
  root.classList.toggle("sw-dim", status.dim === true);
  setText(title, status.title ?? "");
  title.title = status.title ?? "";
  showProgress(elements, status);

  setDisabled(elements, stop, state !== "running");
  setText(stop, "Stop");

  const said = status.message ? { message: status.message, remedy: status.remedy ?? "" } : problem;
  error.hidden = !said;
  error.classList.toggle("sw-warning", state !== "error");
  setText(message, said?.message ?? "");
  setText(remedy, said?.remedy ?? "");

  const readings = status.readings ?? [];
  fill(elements.readings, readings, ({ label, value, help }) => {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = label;
    text.textContent = String(value);
    const pair = document.createElement("div");
    pair.title = help ?? "";
    pair.append(term, text);
    return pair;
  });
  const notes = status.notes ?? [];
  elements.notes.hidden = notes.length === 0;
  fill(elements.notes, notes, (note) => {
    const item = document.createElement("li");
    item.textContent = note;
    return item;
  });
}

function showProgress({ progress, fill: bar, progressText: text }: Elements, status: Status): void {
  const { done = 0, total = 0 } = status;
  const parts = progressParts(status);
  const words = parts.join(SEPARATOR);
  fill(text, parts, (part, i) => {
    const span = document.createElement("span");
    if (i > 0) {
      const dot = document.createElement("span");
      dot.className = "sw-dot";
      dot.textContent = SEPARATOR;
      span.append(dot);
    }
    span.append(part);
    return span;
  });
  text.title = words;
  progress.classList.toggle("sw-failed", status.state === "error" && !isWhole(status));
  const share = total > 0 ? Math.min(1, Math.max(0, done / total)) : status.state === "done" ? 1 : 0;
  bar.style.width = `${100 * share}%`;
  progress.setAttribute("aria-valuemax", String(total || 1));
  progress.setAttribute("aria-valuenow", String(total > 0 ? done : share));
  progress.setAttribute("aria-valuetext", words || "idle");
}
