// Lets the browser free the memory of closed explorers.
//
// JupyterLab (4.4 to 4.6 at least) connects every comm to its kernel's `statusChanged` and never disconnects it. The
// comm references its model, the model its last view, and the view its elements, as long as the kernel lives. A comm
// without callbacks references none of them.

import { type LiveModel, type Manager, resolveModel } from "./models.ts";

/** An ipywidgets model, whose attributes include the models of its parts. */
interface Part extends LiveModel {
  readonly attributes?: Record<string, unknown>;
  readonly changed?: Record<string, unknown>;
  readonly comm?: { on_msg?(callback: () => void): void; on_close?(callback: () => void): void };
}

const RELEASED = new WeakSet<Part>();

/**
 * Release the widget with the id `root` and its parts as soon as they are closed.
 *
 * @returns a function to call when a view is removed, which includes parts added since
 */
export function releaseClosed(manager: Manager, root: unknown): () => void {
  let whole: LiveModel | null = null;
  const release = () => visit(manager, whole, new Set());
  void resolveModel(manager, root).then((model) => {
    whole = model;
    release();
  });
  return release;
}

function visit(manager: Manager, value: unknown, seen: Set<unknown>): void {
  if (typeof value === "string") {
    if (value.startsWith("IPY_MODEL_"))
      void resolveModel(manager, value).then((model) => visit(manager, model, seen));
    return;
  }
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || seen.has(value)) return;
  seen.add(value);
  const { attributes } = value as Part;
  if (attributes) releaseLater(manager, value as Part);
  for (const part of Object.values(attributes ?? value)) visit(manager, part, seen);
}

function releaseLater(manager: Manager, model: Part): void {
  if (RELEASED.has(model)) return;
  RELEASED.add(model);
  model.on("change", () => {
    // Parts may be added and closed while the widget stays open.
    for (const part of Object.values(model.changed ?? {})) visit(manager, part, new Set([model]));
  });
  model.on("destroy", () => {
    model.comm?.on_msg?.(ignore);
    model.comm?.on_close?.(ignore);
  });
}

/** Not a closure inside `releaseLater`, which would keep the model alive. */
function ignore(): void {}
