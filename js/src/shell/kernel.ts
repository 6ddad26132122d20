// Whether the kernel is still there: a view must not go on saying "running" for one that is gone, nor be silent when
// something is moved that nobody answers.

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

/** After any of these the objects of this kernel are lost, whatever starts in its place. */
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
      this.#controls.replace([]);
      kernel?.statusChanged?.disconnect(status);
      kernel?.disposed?.disconnect(end);
    });
  }

  get gone(): boolean {
    return this.#ended || !this.#live;
  }

  /** Something that asks the kernel was moved since it is gone. */
  get unanswered(): boolean {
    return this.gone && this.#moved;
  }

  /** The kernel is asked for something. */
  ask(): void {
    if (!this.gone || this.#moved) return;
    this.#moved = true;
    this.changed();
  }

  /** Watch what asks the kernel: the controls that `references` name. */
  async watch(manager: Manager, references: readonly unknown[]): Promise<void> {
    const models = await Promise.all(references.map((reference) => resolveModel(manager, reference)));
    if (this.life.aborted) return;
    const controls = models.filter((model) => model !== null);
    this.#controls.replace(controls);
    if (!this.#sibling) this.follow(controls[0] ?? null);
  }

  /** Watch what asks the kernel without a value of its own: clicks on `what`, anywhere in the box around a view. */
  watchClicks(root: HTMLElement, box: string, what: string): void {
    const clicked = ({ target }: Event) => {
      const hit = target instanceof Element ? target.closest(what) : null;
      if (hit && root.closest(box)?.contains(hit)) this.ask();
    };
    root.ownerDocument.addEventListener("click", clicked, { capture: true, signal: this.life });
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
