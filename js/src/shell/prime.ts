// Uses the controls' comms once, ahead of the person.
//
// JupyterLab sends comm messages to a subshell, but ipykernel hands a message to whichever shell last published
// on its comm: the one that runs the cells, as long as only the cell that made the widget has. A control's first
// move would then wait for a running cell. An update that changes nothing is echoed by the kernel from the
// subshell, and from then on the control's messages go there. (A custom message would not do: nothing answers it.)

import { type LiveModel, type Manager, resolveModel } from "./models.ts";

/** A control's model: Backbone's `save` is how ipywidgets itself sends changes. */
interface Control extends LiveModel {
  save?(changes: Record<string, unknown>, options: { patch: true }): unknown;
}

const PRIMED = new WeakSet<object>();

/** Prime what `references` name, one in each idle moment; each model once per page. */
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
    // Every widget has this one, no control's view looks at it, and the value is the one it has.
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
