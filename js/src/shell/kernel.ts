// Whether the kernel is still there: a view must not show "running" once it is gone, and must say so when a
// control is moved that needs it.

import type { AnyModel } from "@anywidget/types";
import { type LiveModel, type Manager, resolveModel, Subscriptions } from "./models.ts";

interface Signal<T> {
  connect(slot: (sender: unknown, value: T) => void): unknown;
  disconnect(slot: (sender: unknown, value: T) => void): unknown;
}

/** What JupyterLab's widget manager has beyond the interface; other pages have none of it. */
interface KernelOwner {
  readonly kernel?: { readonly statusChanged?: Signal<string>; readonly disposed?: Signal<unknown> } | null;
}

/** After any of these the objects of this kernel are lost, whatever starts instead. */
const ENDS = new Set(["autorestarting", "dead", "restarting", "terminating"]);

/** What a person moves in a control's model. */
const MOVES = "change:value change:index change:selected_index";

export class KernelWatch {
  #ended = false;
  #live = true;
  #moved = false;
  #sibling: LiveModel | null = null;
  readonly #controls = new Subscriptions(MOVES, () => this.ask());

  /** `changed` is called whenever `gone` or `unanswered` may have changed. */
  constructor(
    model: AnyModel,
    private readonly changed: () => void,
    private readonly life: AbortSignal,
  ) {
    const end = () => {
      this.#ended = true;
      changed();
    };
    // A view's model doesn't show whether its comm lives; all comms of a page die together, but
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
      this.#controls.replace([]);
      kernel?.statusChanged?.disconnect(status);
      kernel?.disposed?.disconnect(end);
    });
  }

  get gone(): boolean {
    return this.#ended || !this.#live;
  }

  /** A control that needs the kernel was moved since it is gone. */
  get unanswered(): boolean {
    return this.gone && this.#moved;
  }

  /** The kernel is needed for something. */
  ask(): void {
    if (!this.gone || this.#moved) return;
    this.#moved = true;
    this.changed();
  }

  /** Watch controls that need the kernel. */
  async watch(manager: Manager, references: readonly unknown[]): Promise<void> {
    const models = await Promise.all(references.map((reference) => resolveModel(manager, reference)));
    if (this.life.aborted) return;
    const controls = models.filter((model) => model !== null);
    this.#controls.replace(controls);
    if (!this.#sibling) this.follow(controls[0] ?? null);
  }

  /** Watch buttons that need the kernel: clicks on `what`, anywhere in the box around a view. */
  watchClicks(root: HTMLElement, box: string, what: string): void {
    const clicked = ({ target }: Event) => {
      const hit = target instanceof Element ? target.closest(what) : null;
      if (hit && root.closest(box)?.contains(hit)) this.ask();
    };
    root.ownerDocument.addEventListener("click", clicked, { capture: true, signal: this.life });
  }

  /** Take the state of the comm from another model of the same kernel. */
  follow(sibling: LiveModel | null): void {
    this.#sibling = sibling;
    if (sibling) this.#look();
  }

  #look(): void {
    this.#live = this.#sibling !== null && this.#sibling.comm_live !== false;
    this.changed();
  }
}
