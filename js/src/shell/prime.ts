// Uses each control's comm once before the user does.
//
// JupyterLab sends comm messages to a subshell, but ipykernel passes a message to the shell that last published on
// its comm. That is the main shell as long as only the cell that created the widget has published, so a control's
// first change would wait for a running cell. The kernel echoes an update that changes nothing from the subshell,
// and from then on the control's messages go there. (A custom message has no such effect, as it gets no reply.)

import { type LiveModel, type Manager, resolveModel } from "./models.ts";

/** A control's model. ipywidgets itself sends changes with Backbone's `save`. */
interface Control extends LiveModel {
  save?(changes: Record<string, unknown>, options: { patch: true }): unknown;
}

const PRIMED = new WeakSet<object>();

/** Prime the referenced models, one per idle period and each only once per page. */
export async function primeControls(
  manager: Manager,
  references: readonly unknown[],
  life: AbortSignal,
): Promise<void> {
  for (const reference of references) {
    await idle();
    if (life.aborted) return;
    const model = await resolveModel(manager, reference);
    if (model && !life.aborted) prime(model);
  }
}

function prime(model: Control): void {
  if (PRIMED.has(model) || !model.comm_live || !model.save) return;
  PRIMED.add(model);
  try {
    // Every widget has this trait, no control's view uses it, and the value doesn't change.
    model.save({ _view_count: model.get("_view_count") ?? null }, { patch: true });
  } catch (error) {
    console.debug("[saliency_widgets] a control could not be primed", error);
  }
}

function idle(): Promise<unknown> {
  return new Promise((resolve) => {
    if (typeof requestIdleCallback === "function") requestIdleCallback(resolve, { timeout: 500 });
    else setTimeout(resolve, 50);
  });
}
