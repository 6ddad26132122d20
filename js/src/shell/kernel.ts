// Watches whether the kernel is alive. Once it is gone, a view must not show "running", and must report it when the
// user moves a control that needs the kernel.

import type { AnyModel } from "@anywidget/types";
import { type LiveModel, type Manager, resolveModel, Subscriptions } from "./models.ts";

interface Signal<T> {
  connect(slot: (sender: unknown, value: T) => void): unknown;
  disconnect(slot: (sender: unknown, value: T) => void): unknown;
}

/** The part of JupyterLab's widget manager beyond the interface; other front ends lack it. */
interface KernelOwner {
  readonly kernel?: { readonly statusChanged?: Signal<string>; readonly disposed?: Signal<unknown> } | null;
}

/** After any of these states the kernel's objects are lost, even if it restarts. */
const ENDS = new Set(["autorestarting", "dead", "restarting", "terminating"]);

/** The events of a control's model when the user moves it. */
const MOVES = "change:value change:index change:selected_index";

export class KernelWatch {
  #ended = false;
  #live = true;
  #moved = false;
  #sibling: LiveModel | null = null;
  readonly #controls = new Subscriptions(MOVES, () => this.ask());

  /** @param changed called whenever `gone` or `unanswered` may have changed */
  constructor(
    model: AnyModel,
    private readonly changed: () => void,
    private readonly life: AbortSignal,
  ) {
    const end = () => {
      this.#ended = true;
      changed();
    };
    // A view's model doesn't show whether its comm is alive, so a sibling's comm is checked. All comms of a page
    // close together but one after another, hence the delay.
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

  /** Whether a control that needs the kernel was moved after the kernel was gone. */
  get unanswered(): boolean {
    return this.gone && this.#moved;
  }

  /** Record a user action that needs the kernel. */
  ask(): void {
    if (!this.gone || this.#moved) return;
    this.#moved = true;
    this.changed();
  }

  /** Watch the referenced controls, which need the kernel. */
  async watch(manager: Manager, references: readonly unknown[]): Promise<void> {
    const models = await Promise.all(references.map((reference) => resolveModel(manager, reference)));
    if (this.life.aborted) return;
    const controls = models.filter((model) => model !== null);
    this.#controls.replace(controls);
    if (!this.#sibling) this.follow(controls[0] ?? null);
  }

  /** Watch buttons that need the kernel: clicks on `what` anywhere in the box that contains the view. */
  watchClicks(root: HTMLElement, box: string, what: string): void {
    const clicked = ({ target }: Event) => {
      const hit = target instanceof Element ? target.closest(what) : null;
      if (hit && root.closest(box)?.contains(hit)) this.ask();
    };
    root.ownerDocument.addEventListener("click", clicked, { capture: true, signal: this.life });
  }

  /** Use another model of the same kernel to check whether the comm is alive. */
  follow(sibling: LiveModel | null): void {
    this.#sibling = sibling;
    if (sibling) this.#look();
  }

  #look(): void {
    this.#live = this.#sibling !== null && this.#sibling.comm_live !== false;
    this.changed();
  }
}
