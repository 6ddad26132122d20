// The view of a lesson. Its contents are in the model's traits, so that it works without a kernel.

import type { AnyModel } from "@anywidget/types";
import { Coalescer } from "../core/coalesce.ts";
import { readDisplay } from "../core/display.ts";
import { type Pixels, toBytes } from "../core/frame.ts";
import { KERNEL_GONE } from "../core/text.ts";
import { fill, make, setText } from "../shell/elements.ts";
import { decodeImage } from "../shell/image.ts";
import { KernelWatch } from "../shell/kernel.ts";
import { resolveModel } from "../shell/models.ts";
import { watchSize } from "../shell/stage.ts";
import { follow, tell } from "../shell/traits.ts";
import { Chooser } from "./chooser.ts";
import {
  type Content,
  isReady,
  isSameChoice,
  Maps,
  moved,
  moveOf,
  type Panel,
  progressOf,
  type StepInfo,
} from "./content.ts";
import { type LessonElements, makeLessonElements } from "./elements.ts";
import { bringIntoSight } from "./highlight.ts";
import { PanelView, type Seen } from "./panel.ts";
import { Strip } from "./strip.ts";
import type { RawText } from "./tokens.ts";

const TO_COME: Content = {
  message: "This step is being computed.",
  remedy: "It appears here when it is finished.",
};
const NEVER: Content = { message: `${KERNEL_GONE}.`, remedy: "The finished steps still work." };

interface Status {
  state?: "running" | "done" | "stopped";
  message?: string;
  remedy?: string;
}

export class LessonView {
  readonly #elements: LessonElements;
  readonly #life = new AbortController();
  readonly #strip: Strip;
  readonly #chooser: Chooser;
  readonly #maps = new Maps();
  readonly #images = new Map<string, { from: DataView; pixels: Pixels | null }>();
  readonly #paints = new Coalescer(() => this.#paint());
  readonly #kernel: KernelWatch;
  #panels: PanelView[] = [];
  #steps: StepInfo[] = [];
  #step = 0;
  #shots = new Map<string, number>();
  #connected = false;

  constructor(
    private readonly model: AnyModel,
    el: HTMLElement,
  ) {
    const life = this.#life.signal;
    this.#strip = new Strip((step) => this.#go(step), life);
    this.#chooser = new Chooser(
      (shot) => this.#choose(shot),
      () => this.#takeFocus(),
      life,
    );
    this.#elements = makeLessonElements(this.#strip.root, this.#chooser.root);
    const { root, back, next, tryIt, full, stop } = this.#elements;
    const on = (button: HTMLElement, act: () => void) =>
      button.addEventListener("click", act, { signal: life });
    on(back, () => this.#go(moved(this.#step, "back", this.#steps.length)));
    on(next, () => this.#go(moved(this.#step, "next", this.#steps.length)));
    on(tryIt, () => this.#send({ type: "try", step: this.#info?.name, shot: this.#shot }));
    on(stop, () => this.#send({ type: "stop" }));
    on(full, () => this.#toggleFullScreen());
    root.addEventListener("keydown", (event) => this.#key(event), { signal: life });
    root.addEventListener("click", (event) => this.#clicked(event), { signal: life });
    full.hidden = !document.fullscreenEnabled;
    document.addEventListener("fullscreenchange", () => this.#showFullScreen(), { signal: life });
    this.#kernel = new KernelWatch(model, () => this.#showKernel(), life);
    this.#followKernel();
    el.replaceChildren(root);
    watchSize(this.#elements.stage, () => this.#paints.request("resize"), life);

    const received = (message: unknown) => this.#onMessage(message);
    model.on("msg:custom", received);
    life.addEventListener("abort", () => model.off("msg:custom", received));
    this.#on("steps", () => this.#readSteps());
    this.#on("title", () => setText(this.#elements.title, String(this.model.get("title") ?? "")));
    this.#on("status", () => this.#readStatus());
    this.#on("step", () => this.#turn(Number(this.model.get("step")) || 0));
  }

  /** Remove all listeners, observers and timers. */
  remove(): void {
    this.#life.abort();
    this.#paints.cancel();
    this.#elements.root.remove();
  }

  #on(trait: string, read: () => void): void {
    follow(this.model, trait, read, this.#life.signal);
  }

  #send(message: object): void {
    tell(() => this.model.send(message));
  }

  // -- incoming traits -----------------------------------------------------------------------------------

  get #info(): StepInfo | undefined {
    return this.#steps[this.#step];
  }

  #content(name: string | undefined): Content {
    return (name && (this.model.get(`content_${name}`) as Content | undefined)) || {};
  }

  #readSteps(): void {
    const steps = (this.model.get("steps") ?? []) as StepInfo[];
    if (steps === this.#steps) return;
    this.#steps = steps;
    this.#strip.fill(steps);
    for (const { name } of steps) this.#on(`content_${name}`, () => this.#readContent(name));
  }

  #readContent(name: string): void {
    const content = this.#content(name);
    this.#maps.add(content.maps);
    for (const [key, bytes] of Object.entries(content.images ?? {})) this.#decode(key, bytes);
    const chosen = this.#shots.get(name);
    if (isReady(content) && (chosen === undefined || chosen >= content.shots!.length)) {
      this.#shots.set(name, content.start ?? 0);
    }
    this.#readStatus();
    this.#paints.request("frame");
  }

  async #decode(key: string, from: DataView): Promise<void> {
    if (this.#images.get(key)?.from === from) return;
    const entry = { from, pixels: null as Pixels | null };
    this.#images.set(key, entry);
    try {
      entry.pixels = await decodeImage(toBytes(from));
    } catch (error) {
      console.debug(`[saliency_widgets] the image ${key} could not be decoded`, error);
    }
    if (!this.#life.signal.aborted) this.#paints.request("frame");
  }

  #readStatus(): void {
    const { root, stop, progress, problem, problemText } = this.#elements;
    const { state = "running", message = "", remedy = "" } = (this.model.get("status") ?? {}) as Status;
    const running = state === "running" && !this.#kernel?.gone;
    const contents = this.#steps.map(({ name }) => this.#content(name));
    root.dataset.state = state;
    stop.classList.toggle("sw-off", !running || progressOf(contents) === "");
    setText(progress, running ? progressOf(contents) : "");
    problem.hidden = !message;
    setText(problemText, `${message} ${remedy}`.trim());
  }

  #onMessage(message: unknown): void {
    const { type, explorer, control } = (message ?? {}) as Record<string, string | undefined>;
    if (type !== "tried" || !explorer || !control) return;
    if (document.fullscreenElement === this.#elements.root) void this.#toggleFullScreen();
    bringIntoSight(explorer, control, this.#life.signal);
  }

  async #followKernel(): Promise<void> {
    // A view's model doesn't show whether its comm is alive, but its layout's model does.
    const sibling = await resolveModel(this.model.widget_manager, this.model.get("layout"));
    if (this.#life.signal.aborted) return;
    this.#connected = sibling !== null && sibling.comm_live !== false;
    this.#kernel.follow(sibling);
    this.#showKernel();
  }

  #showKernel(): void {
    this.#elements.tryIt.classList.toggle("sw-off", !this.#connected || this.#kernel.gone);
    this.#readStatus();
    this.#paints.request("display");
  }

  // -- user actions --------------------------------------------------------------------------------------

  #go(step: number): void {
    if (step === this.#step) return;
    this.#turn(step);
    try {
      this.model.set("step", step);
      this.model.save_changes();
    } catch (error) {
      console.debug("[saliency_widgets] no kernel to send the step to", error);
    }
  }

  #turn(step: number): void {
    this.#step = Math.min(Math.max(0, step), Math.max(0, this.#steps.length - 1));
    const { counter, announcement, back, next, heading, texts, control } = this.#elements;
    const count = this.#steps.length;
    const info = this.#info;
    setText(counter, `${this.#step + 1} of ${count}`);
    this.#strip.mark(this.#step);
    this.#setDisabled(back, this.#step === 0);
    this.#setDisabled(next, this.#step >= count - 1);
    // All texts overlap, so that there is room for the longest and nothing jumps.
    fill(texts, [...this.#steps], ({ text }) => make("p", "lesson-sentences", {}, [text.join(" ")]));
    [...texts.children].forEach((text, i) => {
      text.classList.toggle("sw-off", i !== this.#step);
      text.setAttribute("aria-hidden", String(i !== this.#step));
    });
    setText(heading, info?.title ?? "");
    setText(control, info ? `In the explorer: ${info.control}` : "");
    const words = info ? `${info.title}. ${info.text.join(" ")}` : "";
    setText(announcement, `Step ${this.#step + 1} of ${count}: ${words}`);
    this.#paints.request("display");
  }

  get #shot(): number {
    return this.#shots.get(this.#info?.name ?? "") ?? 0;
  }

  #choose(shot: number): void {
    const chosen = this.#content(this.#info?.name);
    for (const { name } of this.#steps) {
      if (name === this.#info?.name || isSameChoice(this.#content(name), chosen)) this.#shots.set(name, shot);
    }
    this.#paints.request("display");
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { target } = event;
    const focus =
      target instanceof HTMLInputElement ? "slider" : target instanceof HTMLButtonElement ? "button" : "none";
    const move = moveOf(event.key, focus);
    // Keys that a control uses must not reach the notebook, which would act on them.
    if (move || focus === "slider") event.stopPropagation();
    if (!move) return;
    event.preventDefault();
    this.#go(moved(this.#step, move, this.#steps.length));
  }

  /** After a pointer click anywhere, even on a button, keys change the step. Enter and Space don't count as clicks. */
  #clicked(event: MouseEvent): void {
    if (event.detail > 0) this.#takeFocus();
  }

  #takeFocus(): void {
    this.#elements.root.focus({ preventScroll: true });
  }

  /** Enable or disable a button; if it would lose focus to the notebook and its one-letter commands, take the focus. */
  #setDisabled(button: HTMLButtonElement, disabled: boolean): void {
    const focused = document.activeElement === button;
    button.disabled = disabled;
    if (focused && disabled) this.#takeFocus();
  }

  async #toggleFullScreen(): Promise<void> {
    const { root } = this.#elements;
    try {
      if (document.fullscreenElement === root) await document.exitFullscreen();
      else await root.requestFullscreen();
    } catch (error) {
      console.debug("[saliency_widgets] full screen is not available", error);
    }
    this.#takeFocus();
  }

  #showFullScreen(): void {
    const full = document.fullscreenElement === this.#elements.root;
    setText(this.#elements.full, full ? "Leave full screen" : "Full screen");
    this.#paints.request("resize");
  }

  // -- rendering -----------------------------------------------------------------------------------------

  #seen(panel: Panel): Seen {
    return {
      panel,
      image: panel.image === undefined ? null : (this.#images.get(panel.image)?.pixels ?? null),
      frame: this.#maps.get(panel.map),
      scale: this.#maps.get(panel.scale),
      scene: panel.scene ? (this.model.get("scene") as RawText) : null,
      display: readDisplay((name) => panel.display?.[name] ?? this.model.get(name)),
    };
  }

  #paint(): void {
    const { stage, empty, message, remedy, facts, notes, root, readout } = this.#elements;
    const content = this.#content(this.#info?.name);
    const ready = isReady(content);
    const shot = ready ? content.shots![Math.min(this.#shot, content.shots!.length - 1)] : null;
    const panels = shot?.panels ?? [];
    while (this.#panels.length < panels.length) {
      const panel = new PanelView((words) => setText(readout, words), this.#life.signal);
      this.#panels.push(panel);
      stage.append(panel.root);
    }
    stage.style.setProperty("--sw-count", String(Math.max(1, panels.length)));
    stage.classList.toggle("sw-lesson-alone", panels.length === 1);
    let painted = ready;
    this.#panels.forEach((view, i) => {
      view.root.hidden = i >= panels.length;
      if (i < panels.length) painted = view.show(this.#seen(panels[i])) && painted;
    });
    const state = content.state ? content : this.#kernel.gone ? NEVER : TO_COME;
    empty.hidden = ready;
    setText(message, ready ? "" : (state.message ?? ""));
    setText(remedy, ready ? "" : (state.remedy ?? ""));
    setText(facts, shot?.text ?? "");
    setText(notes, (content.notes ?? []).join(" "));
    this.#chooser.show(ready ? content : {}, this.#shot);
    this.#showStrip();
    root.dataset.step = String(this.#step);
    if (!painted) return;
    root.dataset.painted = `${this.#step} ${this.#shot}`;
    root.dispatchEvent(
      new CustomEvent("sw-paint", { bubbles: true, detail: { step: this.#step, shot: this.#shot } }),
    );
  }

  #showStrip(): void {
    this.#steps.forEach(({ name }, i) => {
      const content = this.#content(name);
      const panels = isReady(content) ? content.shots![content.start ?? 0].panels : [];
      const last = panels.findLast((panel) => panel.map || panel.bars) ?? panels[panels.length - 1];
      this.#strip.show(i, content.state ?? "", last ? this.#seen(last) : null);
    });
  }
}
