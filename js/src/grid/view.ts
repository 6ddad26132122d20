// A grid of maps with shared display settings, a shared scale for comparable maps, and a shared pixel cursor.

import type { AnyModel } from "@anywidget/types";
import type { Limits } from "../core/clip.ts";
import { type Display, readDisplay } from "../core/display.ts";
import { limitsOf } from "../core/scale.ts";
import { formatTime, KERNEL_GONE, unanswered } from "../core/text.ts";
import { make, setText } from "../shell/elements.ts";
import { KernelWatch } from "../shell/kernel.ts";
import { type LiveModel, resolveModel, Subscriptions } from "../shell/models.ts";
import { primeControls } from "../shell/prime.ts";
import { watchSize } from "../shell/stage.ts";
import { follow, tell } from "../shell/traits.ts";
import { Bars } from "./bars.ts";
import { type CellModel, GridCell, type Spot } from "./cell.ts";
import { ModelCheckUps, type RawCheckUp } from "./checkups.ts";
import { listen } from "./input.ts";
import { PairView } from "./pair.ts";
import { Scales } from "./scales.ts";
import { Table } from "./table.ts";
import { Toolbar } from "./toolbar.ts";

/** The value of the trait `progress`. */
export interface Progress {
  state?: "running" | "done" | "stopped";
  done?: number;
  total?: number;
  remaining?: number | null;
}

/** The limits of a map's width, and the width if there is room, in pixels of the page. */
const SQUARE = { least: 110, usual: 260, most: 420 };
/** Texts and signals are wider than high. */
const WIDE = { least: 190, usual: 640, most: 900 };

export class GridView {
  readonly #life = new AbortController();
  readonly #table = new Table();
  readonly #bars = new Bars();
  readonly #toolbar: Toolbar;
  readonly #pair: PairView;
  readonly #checkUps = new ModelCheckUps();
  readonly #opened = make("div", "opened", { "aria-live": "polite" });
  readonly #root: HTMLElement;
  readonly #kernel: KernelWatch;
  readonly #displayChanges = new Subscriptions("change", () => this.#readDisplay());
  readonly #seen = new Set<GridCell>();
  readonly #dirty = new Set<GridCell>();
  readonly #watch: IntersectionObserver;

  #cells: GridCell[] = [];
  #cause = "frame";
  #turn = 0;
  #display: Display | null = null;
  #frame: number | null = null;
  readonly #scales = new Scales((cell) => this.#isLocked(cell));
  #spot: Spot | null = null;
  #reported = "";
  #hovering: number | null = null;
  #source: LiveModel | null = null;
  /** The width set with the size slider; null while the maps are as wide as their columns allow. */
  #width: number | null = null;
  /** Whether a cell was clicked on this page and its explorer hasn't been opened yet. */
  #opening = false;

  constructor(
    private readonly model: AnyModel,
    el: HTMLElement,
  ) {
    const life = this.#life.signal;
    this.#toolbar = new Toolbar(
      {
        stop: () => {
          this.#send({ type: this.#progress.state === "running" ? "stop" : "go" });
          this.#kernel.ask();
        },
        scale: (scale) => this.#write("scale", scale),
        width: (width) => {
          this.#width = width;
          this.#fit();
        },
      },
      life,
    );
    this.#pair = new PairView(
      {
        chosen: (pair) => this.#write("pair", [...pair]),
        repaint: () => this.#soon("display"),
        point: (spot) => this.#point(spot),
      },
      life,
    );
    this.#root = make(
      "div",
      "view sw-grid",
      { role: "group", "aria-label": "Comparison of saliency maps", "data-lm-suppress-shortcuts": "true" },
      [
        this.#toolbar.root,
        this.#bars.root,
        this.#table.scroller,
        this.#opened,
        this.#pair.root,
        this.#checkUps.root,
      ],
    );
    this.#watch = new IntersectionObserver((entries) => this.#see(entries), { rootMargin: "40px" });
    life.addEventListener("abort", () => this.#watch.disconnect());
    const grid = {
      cells: () => this.#cells,
      columns: () => ((this.model.get("columns") ?? []) as string[]).length || 1,
      open: (cell: GridCell) => this.#open(cell),
      toggle: (cell: GridCell) => this.#toggle(cell),
      spot: () => this.#spot,
      point: (spot: Spot | null) => this.#point(spot),
    };
    listen(this.#root, this.#table.root, this.#pair.canvas, grid, life);
    this.#pair.root.addEventListener("toggle", () => this.#soon("display"), { signal: life });
    const changed = () => {
      this.#readProgress();
      this.#readOpened();
    };
    this.#kernel = new KernelWatch(model, changed, life);
    this.#kernel.watchClicks(this.#root, ".sw-sweep", ".jupyter-button");
    el.replaceChildren(this.#root);
    const resized = () => {
      this.#fit();
      this.#soonAll("resize");
    };
    watchSize(this.#table.scroller, resized, life);

    this.#on("display", () => this.#resolveDisplay());
    this.#on("cells", () => this.#resolveCells());
    this.#on("scale", () => this.#rescale());
    this.#on("unlocked", () => this.#rescale());
    this.#on("pair", () => {
      this.#pair.choose(this.#chosen);
      this.#soon("display");
    });
    this.#on("progress", () => this.#readProgress());
    this.#on("checkups", () => this.#checkUps.show((this.model.get("checkups") ?? []) as RawCheckUp[]));
    this.#on("opened", () => this.#readOpened());
    this.#on("controls", () => {
      const references = this.model.get("controls");
      if (!Array.isArray(references)) return;
      primeControls(this.model.widget_manager, references, life);
      this.#kernel.watch(this.model.widget_manager, references);
    });
  }

  remove(): void {
    this.#life.abort();
    for (const handle of [this.#frame, this.#hovering]) if (handle !== null) cancelAnimationFrame(handle);
    this.#displayChanges.replace([]);
    for (const cell of this.#cells) cell.remove();
    this.#root.remove();
  }

  #on(trait: string, read: () => void): void {
    follow(this.model, trait, read, this.#life.signal);
  }

  #send(message: object): void {
    tell(() => this.model.send(message));
  }

  /** Write a setting of the whole grid, in one message per change. */
  #write(trait: string, value: unknown): void {
    this.model.set(trait, value);
    tell(() => this.model.save_changes());
  }

  // -- incoming traits -----------------------------------------------------------------------------------

  get #progress(): Progress {
    return (this.model.get("progress") ?? {}) as Progress;
  }

  get #unlocked(): number[] {
    return (this.model.get("unlocked") ?? []) as number[];
  }

  get #chosen(): readonly [number, number] {
    const [a = -1, b = -1] = (this.model.get("pair") ?? []) as number[];
    return [a, b];
  }

  get #shared(): boolean {
    return this.model.get("scale") !== "separate";
  }

  async #resolveDisplay(): Promise<void> {
    const reference = this.model.get("display");
    const model = await resolveModel(this.model.widget_manager, reference);
    if (this.#life.signal.aborted || reference !== this.model.get("display")) return;
    this.#displayChanges.replace(model ? [model] : []);
    this.#source = model;
    this.#kernel.follow(model);
    this.#readDisplay();
  }

  #readDisplay(): void {
    const source = this.#source;
    this.#display = source && readDisplay((name) => source.get(name));
    this.#soonAll("display");
  }

  async #resolveCells(): Promise<void> {
    const references = (this.model.get("cells") ?? []) as unknown[];
    const turn = ++this.#turn;
    const manager = this.model.widget_manager;
    const models = await Promise.all(references.map((reference) => resolveModel(manager, reference)));
    if (this.#life.signal.aborted || turn !== this.#turn) return;
    for (const cell of this.#cells) {
      this.#watch.unobserve(cell.body);
      cell.remove();
    }
    this.#seen.clear();
    this.#dirty.clear();
    this.#scales.clear();
    const events = {
      dirty: (cell: GridCell) => this.#soon("frame", cell),
      moved: () => this.#soonLocked(),
      point: (spot: Spot | null) => this.#point(spot),
    };
    this.#cells = [];
    models.forEach((model, k) => {
      if (model) this.#cells.push(new GridCell(model as CellModel, k, events));
    });
    this.#table.lay(
      (this.model.get("rows") ?? []) as string[],
      (this.model.get("columns") ?? []) as string[],
      this.#cells,
    );
    this.#fit();
    for (const cell of this.#cells) this.#watch.observe(cell.body);
    if (this.#cells[0]) this.#cells[0].root.tabIndex = 0;
    this.#pair.offer(this.#cells, this.#chosen);
    this.#rescale();
  }

  /** Set the width of the maps to the selected width, or to the width that the columns have room for. */
  #fit(): void {
    const { least, usual, most } = this.#cells.some(({ scene }) => scene) ? WIDE : SQUARE;
    this.#toolbar.limitWidth(least, most);
    const width = this.#width ?? Math.min(usual, Math.max(least, this.#table.room));
    this.#root.style.setProperty("--sw-cell", `${width}px`);
    this.#toolbar.showWidth(width);
  }

  #readProgress(): void {
    const { state = "done", done = 0, total = 0, remaining } = this.#progress;
    const gone = this.#kernel.gone && state !== "done";
    const left = typeof remaining === "number" ? `, ${formatTime(remaining)} left` : "";
    const words = gone
      ? KERNEL_GONE
      : total === 0
        ? ""
        : state === "running"
          ? `${done} of ${total} maps${left}`
          : `${state === "stopped" ? "Stopped at " : ""}${done} of ${total} maps`;
    this.#toolbar.showProgress(words, total ? done / total : 0, gone ? "done" : state);
    this.#root.dataset.state = state;
    // Maps that were computed before the grid have no progress.
    this.#root.classList.toggle("sw-still", total === 0);
  }

  /** Report an explorer that was opened below, and scroll to it once it is on the page. */
  #readOpened(): void {
    const { words = "", mark = "" } = (this.model.get("opened") ?? {}) as { words?: string; mark?: string };
    setText(this.#opened, this.#kernel.unanswered ? unanswered("grid") : words);
    if (!mark) return;
    const until = performance.now() + 8000;
    const look = () => {
      if (this.#life.signal.aborted || performance.now() > until) return;
      const explorer = this.#root.ownerDocument.querySelector(`.${CSS.escape(mark)} .sw-heatmap`);
      if (explorer) explorer.scrollIntoView({ block: "nearest", behavior: "smooth" });
      else requestAnimationFrame(look);
    };
    // A reopened page has the trait too, but without a click.
    if (this.#opening) requestAnimationFrame(look);
    this.#opening = false;
  }

  // -- rendering -----------------------------------------------------------------------------------------

  #rescale(): void {
    const shared = this.#shared;
    const unlocked = new Set(this.#unlocked);
    this.#toolbar.showScale(shared ? "shared" : "separate");
    for (const { lock, index } of this.#cells) {
      const separate = unlocked.has(index);
      lock.setAttribute("aria-pressed", String(!separate));
      lock.disabled = !shared;
      lock.title = !shared
        ? "Each map has its own scale now: choose 'One scale' to lock maps to each other"
        : separate
          ? "This map has its own scale; press to use the shared scale again (L)"
          : "Equal colors mean equal values in all locked maps of this kind; press to give this one its own scale (L)";
      lock.setAttribute("aria-label", separate ? "Lock to the shared scale" : "Unlock from the shared scale");
    }
    this.#soonAll("display");
  }

  readonly #isLocked = (cell: GridCell): boolean => this.#shared && !this.#unlocked.includes(cell.index);

  #soonAll(cause: string): void {
    for (const cell of this.#cells) this.#dirty.add(cell);
    this.#soon(cause);
  }

  #soonLocked(): void {
    for (const cell of this.#cells) if (cell.frame && this.#isLocked(cell)) this.#dirty.add(cell);
    this.#soon("frame");
  }

  #soon(cause: string, cell?: GridCell): void {
    if (cell) this.#dirty.add(cell);
    if (cause === "display" || this.#frame === null) this.#cause = cause;
    this.#frame ??= requestAnimationFrame(() => this.#paint());
  }

  /** Paint the visible cells in this animation frame and the others in the next one. */
  #paint(): void {
    this.#frame = null;
    const display = this.#display;
    if (!display) return;
    const first = [...this.#dirty].filter((cell) => this.#seen.has(cell));
    const now = first.length > 0 ? first : [...this.#dirty];
    const painted: number[] = [];
    for (const cell of now) {
      this.#dirty.delete(cell);
      const ends = this.#scales.ends(cell, this.#cells, display);
      const limits: Limits | null = ends && cell.frame && limitsOf(cell.frame, ends);
      if (cell.paint(display, limits)) painted.push(cell.index);
    }
    const cause = this.#cause;
    this.#pair.paint(display);
    this.#bars.show(this.#scales.shown(this.#cells, display), display);
    this.#say();
    if (this.#dirty.size > 0) this.#frame = requestAnimationFrame(() => this.#paint());
    const detail = { painted, cause, left: this.#dirty.size };
    this.#root.dispatchEvent(new CustomEvent("sw-grid-paint", { bubbles: true, detail }));
  }

  #say(): void {
    for (const cell of this.#cells) cell.say(this.#spot);
    this.#pair.say(this.#spot);
  }

  #point(spot: Spot | null): void {
    this.#spot = spot;
    this.#hovering ??= requestAnimationFrame(() => {
      this.#hovering = null;
      this.#say();
    });
  }

  #see(entries: IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of entries) {
      const cell = this.#cells.find(({ body }) => body === target);
      if (!cell) continue;
      if (isIntersecting) this.#seen.add(cell);
      else this.#seen.delete(cell);
    }
    const seen = this.#cells.filter((cell) => this.#seen.has(cell)).map(({ index }) => index);
    const report = JSON.stringify(seen);
    if (report === this.#reported) return;
    this.#reported = report;
    // The order matters only while maps are being computed.
    if (this.#progress.state === "running") this.#send({ type: "visible", cells: seen });
  }

  // -- user actions --------------------------------------------------------------------------------------

  #toggle(cell: GridCell): void {
    if (cell.lock.disabled) return;
    const now = this.#unlocked;
    const { index } = cell;
    this.#write("unlocked", now.includes(index) ? now.filter((k) => k !== index) : [...now, index]);
  }

  #open(cell: GridCell): void {
    this.#opening = !this.#kernel.gone;
    this.#send({ type: "open", cell: cell.index });
    this.#kernel.ask();
  }
}
