// Closing an explorer releases all its parts, whenever they were added: their comms call nothing any more.
import { describe, expect, it } from "vitest";
import { releaseClosed } from "../src/shell/release.ts";

/** A model like ipywidgets', which records what its comm calls. */
class Model {
  readonly calls = new Set(["model"]);
  readonly comm = {
    on_msg: () => this.calls.delete("model"),
    on_close: () => this.calls.delete("model"),
  };
  readonly #listeners: Record<string, (() => void)[]> = { destroy: [], change: [] };
  changed: Record<string, unknown> = {};

  constructor(readonly attributes: Record<string, unknown> = {}) {}

  get(name: string): unknown {
    return this.attributes[name];
  }

  on(event: string, listener: () => void): void {
    this.#listeners[event]?.push(listener);
  }

  off(): void {}

  change(attributes: Record<string, unknown>): void {
    Object.assign(this.attributes, attributes);
    this.changed = attributes;
    for (const listener of this.#listeners.change ?? []) listener();
  }

  /** Close the model; returns whether its comm calls nothing any more. */
  close(): boolean {
    for (const listener of this.#listeners.destroy ?? []) listener();
    return this.calls.size === 0;
  }
}

function pageOf(models: Record<string, Model>) {
  return {
    get_model: async (id: string) => {
      if (!models[id]) throw new Error("widget model not found");
      return models[id];
    },
  };
}

describe("a closed explorer", () => {
  it("releases every part: in attributes, lists, mappings and references, also in cycles", async () => {
    const [layout, mark, scale, display, root] = [1, 2, 3, 4, 5].map(() => new Model());
    mark.attributes.scales = { x: scale };
    const view = new Model({
      display: "IPY_MODEL_display",
      frame: { codes: new DataView(new ArrayBuffer(8)) },
    });
    Object.assign(root.attributes, { layout, children: [view, mark], title: "a text" });
    scale.attributes.parent = root;
    releaseClosed(pageOf({ root, display }), "root");
    const parts = [root, layout, view, mark, scale, display];
    await expect.poll(() => parts.every((part) => part.close())).toBe(true);
  });

  it("does not release open widgets", async () => {
    const root = new Model();
    releaseClosed(pageOf({ root }), "root")();
    await Promise.resolve();
    expect([...root.calls]).toEqual(["model"]);
  });

  it("releases parts that were added after it was shown", async () => {
    const root = new Model({ children: [] });
    const release = releaseClosed(pageOf({ root }), "root");
    await expect.poll(() => root.close()).toBe(true);
    const late = new Model();
    root.attributes.children = [late];
    release();
    expect(late.close()).toBe(true);
  });

  it("releases parts that were added and closed while it was shown", async () => {
    const box = new Model({ children: [] });
    const root = new Model({ children: [box] });
    releaseClosed(pageOf({ root }), "root");
    await Promise.resolve();
    const layout = new Model();
    const late = new Model({ layout });
    await expect
      .poll(() => {
        box.change({ children: [late] });
        return late.close() && layout.close();
      })
      .toBe(true);
  });

  it("may be missing, or unknown to the page", () => {
    for (const root of ["", "gone", undefined]) expect(() => releaseClosed(pageOf({}), root)()).not.toThrow();
  });
});
