// Replaces the widget manager on a saved page: models that hold the saved traits, without a kernel.

import type { Manager } from "../shell/models.ts";
import type { Archive, Traits } from "./archive.ts";

type Listener = (model: PageModel, value: unknown) => void;

export class PageModel {
  readonly widget_manager: Manager;
  readonly #traits: Traits;
  readonly #listeners = new Map<string, Set<Listener>>();
  /** The drawing at the time of saving; only for ipycanvas models. */
  canvas?: HTMLCanvasElement;

  constructor(traits: Traits, manager: Manager) {
    this.#traits = traits;
    this.widget_manager = manager;
  }

  get(name: string): unknown {
    return this.#traits[name];
  }

  /** Set one trait by name, or several; listeners are notified of those that changed. */
  set(change: string | Traits, value?: unknown): void {
    const changes = typeof change === "string" ? { [change]: value } : change;
    const changed = Object.keys(changes).filter((name) => !Object.is(this.#traits[name], changes[name]));
    Object.assign(this.#traits, changes);
    for (const name of changed) this.#notify(`change:${name}`, changes[name]);
    if (changed.length > 0) this.#notify("change");
  }

  /** Does nothing, because there is no kernel to save to. */
  save_changes(): void {}

  /** Drops the message, because there is no kernel. */
  send(): void {}

  on(events: string, listener: Listener): void {
    for (const event of events.split(" ")) {
      const listeners = this.#listeners.get(event) ?? new Set();
      this.#listeners.set(event, listeners.add(listener));
    }
  }

  off(events?: string | null, listener?: Listener | null): void {
    const meant = events ? events.split(" ") : [...this.#listeners.keys()];
    for (const event of meant) {
      if (listener) this.#listeners.get(event)?.delete(listener);
      else this.#listeners.delete(event);
    }
  }

  #notify(event: string, value?: unknown): void {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) listener(this, value);
  }
}

/** The models of the page, in the order of the archive; references are indices into it. */
export async function makeModels(archive: Archive): Promise<PageModel[]> {
  const models: PageModel[] = [];
  const manager: Manager = {
    get_model: async (id) => {
      const model = models[Number(id)];
      if (!model) throw new Error(`this page has no model ${id}`);
      return model;
    },
  };
  for (const traits of archive.models) models.push(new PageModel(traits, manager));
  await Promise.all(
    archive.images.map(async ({ model, width, height, png }) => {
      const canvas = document.createElement("canvas");
      canvas.width = width;
      canvas.height = height;
      const drawn = png.byteLength ? await createImageBitmap(new Blob([png as DataView<ArrayBuffer>])) : null;
      if (drawn) canvas.getContext("2d")?.drawImage(drawn, 0, 0, width, height);
      drawn?.close();
      models[model].canvas = canvas;
    }),
  );
  return models;
}
