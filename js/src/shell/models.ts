// Access to other widgets' models, such as the shared display settings and the drawing layers.

/** A widget model as the widget manager returns it. Only ipycanvas models have `canvas`. */
export interface LiveModel {
  get(name: string): unknown;
  on(events: string, callback: () => void): void;
  off(events: string, callback: () => void): void;
  set?(name: string, value: unknown): void;
  save_changes?(): void;
  readonly canvas?: HTMLCanvasElement;
  /** False once the kernel has closed its end of the comm; undefined on pages that don't report it. */
  readonly comm_live?: boolean;
}

export interface Manager {
  get_model(id: string): Promise<unknown>;
}

/** The model that "IPY_MODEL_<id>" refers to; null if it is gone, since a closed widget must not break the view. */
export async function resolveModel(manager: Manager, reference: unknown): Promise<LiveModel | null> {
  try {
    if (typeof reference !== "string") return isModel(reference) ? reference : null;
    const model = await manager.get_model(reference.replace(/^(IPY_MODEL_|anywidget:)/, ""));
    return isModel(model) ? model : null;
  } catch {
    return null;
  }
}

function isModel(value: unknown): value is LiveModel {
  return typeof value === "object" && value !== null && typeof (value as LiveModel).get === "function";
}

/** Listeners on a replaceable set of models; replacing the set removes the old listeners. */
export class Subscriptions {
  #models: LiveModel[] = [];

  constructor(
    private readonly events: string,
    private readonly callback: () => void,
  ) {}

  replace(models: LiveModel[]): void {
    for (const model of this.#models) model.off(this.events, this.callback);
    this.#models = models;
    for (const model of models) model.on(this.events, this.callback);
  }
}
