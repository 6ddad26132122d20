// Other widgets' models: the shared display settings and the drawing layers.

/** A widget model as the widget manager gives it. `canvas` is there on ipycanvas models. */
export interface LiveModel {
  get(name: string): unknown;
  on(events: string, callback: () => void): void;
  off(events: string, callback: () => void): void;
  set?(name: string, value: unknown): void;
  save_changes?(): void;
  readonly canvas?: HTMLCanvasElement;
  /** False once the kernel's end is closed; missing on pages that don't have it. */
  readonly comm_live?: boolean;
}

export interface Manager {
  get_model(id: string): Promise<unknown>;
}

/** The model that "IPY_MODEL_<id>" names, or null: a closed widget must not break the view. */
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

/** Models that are listened to while they are in use, and left alone afterwards. */
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
