// Whether the kernel is still there: a view must not go on saying "running" for one that is gone.

import type { AnyModel } from "@anywidget/types";
import type { LiveModel } from "./models.ts";

interface Signal<T> {
  connect(slot: (sender: unknown, value: T) => void): unknown;
  disconnect(slot: (sender: unknown, value: T) => void): unknown;
}

/** What JupyterLab's widget manager has beyond the interface; other pages have none of it. */
interface KernelOwner {
  readonly kernel?: { readonly statusChanged?: Signal<string>; readonly disposed?: Signal<unknown> } | null;
}

/** After any of these the objects of this kernel are lost, whatever starts in its place. */
const ENDS = new Set(["autorestarting", "dead", "restarting", "terminating"]);

export class KernelWatch {
  #ended = false;
  #live = true;
  #sibling: LiveModel | null = null;

  /** `changed` is called whenever `gone` may have changed. */
  constructor(
    model: AnyModel,
    private readonly changed: () => void,
    life: AbortSignal,
  ) {
    const end = () => {
      this.#ended = true;
      changed();
    };
    // The model that a view is given doesn't tell whether its comm lives; all comms of a page die together, but
    // one after another.
    const update = () => setTimeout(() => !life.aborted && this.#look());
    model.on("comm:close", end);
    model.on("comm_live_update", update);
    life.addEventListener("abort", () => {
      model.off("comm:close", end);
      model.off("comm_live_update", update);
    });

    const kernel = (model.widget_manager as KernelOwner | undefined)?.kernel;
    const status = (_: unknown, value: string) => {
      if (ENDS.has(value)) end();
    };
    kernel?.statusChanged?.connect(status);
    kernel?.disposed?.connect(end);
    life.addEventListener("abort", () => {
      kernel?.statusChanged?.disconnect(status);
      kernel?.disposed?.disconnect(end);
    });
  }

  get gone(): boolean {
    return this.#ended || !this.#live;
  }

  /** Another model of the same kernel, which does tell. */
  follow(sibling: LiveModel | null): void {
    this.#sibling = sibling;
    if (sibling) this.#look();
  }

  #look(): void {
    this.#live = this.#sibling !== null && this.#sibling.comm_live !== false;
    this.changed();
  }
}
