// Other widgets' models: the shared display settings and the drawing layers.

import type { Display } from "../core/compose.ts";
import { toBytes } from "../core/frame.ts";

/** A widget model as the widget manager gives it. `canvas` is there on ipycanvas models. */
export interface LiveModel {
  get(name: string): unknown;
  on(events: string, callback: () => void): void;
  off(events: string, callback: () => void): void;
  set?(name: string, value: unknown): void;
  save_changes?(): void;
  readonly canvas?: HTMLCanvasElement;
  /** False once nothing is at the other end; missing where a page doesn't tell. */
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

const TABLE = 768;

/** Reads the settings; keeps the same table object while the same colors are meant. */
export class DisplayReader {
  #tables = new Map<string, { from: unknown; index: number; table: Uint8Array }>();

  read(model: LiveModel): Display | null {
    const lut = this.#table(model, "colormap");
    const diverging = this.#table(model, "diverging");
    if (!lut || !diverging) return null;
    const clip = model.get("clip");
    const [low, high] = Array.isArray(clip) ? clip : [0, 100];
    return {
      lut,
      diverging,
      opacity: limited(model.get("opacity"), 0, 1, 1),
      clip: [limited(low, 0, 100, 0), limited(high, 0, 100, 100)],
      threshold: limited(model.get("threshold"), 0, 1, 0),
      blend: Number(model.get("blend")) || 0,
    };
  }

  #table(model: LiveModel, name: string): Uint8Array | null {
    const from = model.get(`${name}_luts`);
    const index = Number(model.get(name)) || 0;
    const known = this.#tables.get(name);
    if (known && known.from === from && known.index === index) return known.table;
    const table = toBytes(from as DataView).slice(TABLE * index, TABLE * (index + 1));
    if (table.length < TABLE) return null;
    this.#tables.set(name, { from, index, table });
    return table;
  }
}

function limited(value: unknown, low: number, high: number, otherwise: number): number {
  const number = typeof value === "number" && Number.isFinite(value) ? value : otherwise;
  return Math.min(high, Math.max(low, number));
}
