// Lets the page forget an explorer that is closed.
//
// JupyterLab (4.4 to 4.6 at least) connects every comm to its kernel's `statusChanged` and never takes that back: the
// comm keeps its model, the model its last view, and the view its elements for as long as the kernel lives. A comm
// without callbacks keeps nothing.

import { type LiveModel, type Manager, resolveModel } from "./models.ts";

/** A model as ipywidgets has it: among its attributes are the models that it is made of. */
interface Part extends LiveModel {
  readonly attributes?: Record<string, unknown>;
  readonly changed?: Record<string, unknown>;
  readonly comm?: { on_msg?(callback: () => void): void; on_close?(callback: () => void): void };
}

const RELEASED = new WeakSet<Part>();

/**
 * Release the widget with the id `root`, and all that it is made of, as soon as they are closed.
 *
 * @returns What is to be called when a view of it goes, for the parts that came since.
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
    // Parts may come and be closed again while the whole stays in sight.
    for (const part of Object.values(model.changed ?? {})) visit(manager, part, new Set([model]));
  });
  model.on("destroy", () => {
    model.comm?.on_msg?.(ignore);
    model.comm?.on_close?.(ignore);
  });
}

/** Not an arrow function in `releaseLater`: that would keep the model. */
function ignore(): void {}
