// Stands in for the widget manager: models whose traits are what was saved, with nobody at the other end.

import type { Manager } from "../shell/models.ts";
import type { Archive, Traits } from "./archive.ts";

type Listener = (model: PageModel, value: unknown) => void;

export class PageModel {
  readonly widget_manager: Manager;
  readonly #traits: Traits;
  readonly #listeners = new Map<string, Set<Listener>>();
  /** Of ipycanvas models: what was drawn when the page was saved. */
  canvas?: HTMLCanvasElement;

  constructor(traits: Traits, manager: Manager) {
    this.#traits = traits;
    this.widget_manager = manager;
  }

  get(name: string): unknown {
    return this.#traits[name];
  }

  /** One trait by name, or several; those that changed are told. */
  set(given: string | Traits, value?: unknown): void {
    const changes = typeof given === "string" ? { [given]: value } : given;
    const changed = Object.keys(changes).filter((name) => !Object.is(this.#traits[name], changes[name]));
    Object.assign(this.#traits, changes);
    for (const name of changed) this.#tell(`change:${name}`, changes[name]);
    if (changed.length > 0) this.#tell("change");
  }

  /** Nothing is to be saved to. */
  save_changes(): void {}

  /** Nobody hears it: what asks the kernel does nothing here. */
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

  #tell(event: string, value?: unknown): void {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) listener(this, value);
  }
}

/** The models of the page, in the order of the archive; references name their places. */
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
