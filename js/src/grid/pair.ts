// The difference of two cells, as a signed map.

import { Composer } from "../core/compose.ts";
import { difference } from "../core/difference.ts";
import type { Display } from "../core/display.ts";
import type { Frame } from "../core/frame.ts";
import { formatNumber } from "../core/text.ts";
import type { RawScene, Scene } from "../heatmap/scene.ts";
import { sceneOf } from "../heatmap/scenes.ts";
import { drawBar } from "../shell/bar.ts";
import { make, setText } from "../shell/elements.ts";
import { Stage } from "../shell/stage.ts";
import { type GridCell, pixelAt, READ_ONLY, type Spot, showScene } from "./cell.ts";

const NONE =
  "Choose two cells: a signed map shows where the first is larger (one color) or smaller (the other).";
const COMPARED = "Unscaled values: both maps have the same unit.";
const RELATIVE =
  "The two maps have different units: each was divided by its own upper clip value before they were subtracted.";
const SIZES = "The two maps differ in size and can't be subtracted. Choose cells of the same size.";
const PARTIAL = "Only planes are on the page: compared.difference(a, b) subtracts the whole volumes.";
const UNREADY = "One of the two maps is not finished yet.";

export interface PairActs {
  /** The indices of the two selected cells, -1 for none. */
  chosen(pair: readonly [number, number]): void;
  /** Paint in the next animation frame. */
  repaint(): void;
  /** A token or a sample is read; null if none is. */
  point(spot: Spot | null): void;
}

export class PairView {
  readonly root: HTMLElement;
  readonly #selects: readonly [HTMLSelectElement, HTMLSelectElement];
  readonly #canvas = make("canvas", "cell-canvas", { role: "img", "aria-label": "The difference" });
  readonly #stageBox: HTMLElement;
  readonly #cursor = make("div", "cursor", { hidden: "" });
  readonly #bar = make("canvas", "bar", { "aria-hidden": "true", width: "256", height: "1" });
  readonly #ticks = make("div", "ticks");
  readonly #words = make("div", "pair-words", { "aria-live": "polite" }, [NONE]);
  readonly #reading = make("div", "readout");
  readonly #body: HTMLElement;
  readonly #stage: Stage;
  readonly #composer = new Composer();
  #cells: readonly GridCell[] = [];
  #scene: Scene | null = null;
  #shown: RawScene | null = null;
  #last: { key: readonly unknown[]; frame: Frame | null } | null = null;

  constructor(
    private readonly acts: PairActs,
    private readonly life: AbortSignal,
  ) {
    const select = (label: string) => make("select", "pair-select", { "aria-label": label });
    this.#selects = [select("Map"), select("Map to subtract")];
    const swap = make("button", "tool", { type: "button", title: "Exchange the two" }, ["Swap"]);
    const tell = () => acts.chosen(this.pair);
    for (const one of this.#selects) one.addEventListener("change", tell, { signal: life });
    swap.addEventListener(
      "click",
      () => {
        const [a, b] = this.#selects;
        [a.value, b.value] = [b.value, a.value];
        tell();
      },
      { signal: life },
    );
    this.#stage = new Stage(this.#canvas);
    this.#stageBox = make("div", "cell-stage", {}, [this.#canvas, this.#cursor]);
    this.#body = make("div", "pair-body", { hidden: "" }, [
      this.#stageBox,
      make("div", "pair-scale", {}, [this.#bar, this.#ticks]),
      this.#reading,
    ]);
    const [a, b] = this.#selects;
    this.root = make("details", "pair", {}, [
      make("summary", "pair-summary", {}, ["Difference of two maps"]),
      make("div", "pair-chosen", {}, [a, make("span", "minus", {}, ["−"]), b, swap]),
      this.#words,
      this.#body,
    ]);
  }

  get canvas(): HTMLCanvasElement {
    return this.#canvas;
  }

  get pair(): readonly [number, number] {
    const [a, b] = this.#selects;
    return [Number(a.value), Number(b.value)];
  }

  /** Select a pair of cells; the view opens if both are selected. */
  choose(pair: readonly [number, number]): void {
    this.#selects.forEach((select, k) => {
      select.value = String(pair[k]);
    });
    if (pair[0] >= 0 && pair[1] >= 0) (this.root as HTMLDetailsElement).open = true;
  }

  offer(cells: readonly GridCell[], pair: readonly [number, number]): void {
    this.#cells = cells;
    for (const select of this.#selects) {
      const options = [["-1", "choose a map"], ...cells.map((cell) => [String(cell.index), cell.name])];
      select.replaceChildren(
        ...options.map(([value, text]) => make("option", "pair-option", { value }, [text])),
      );
    }
    this.choose(pair);
  }

  /** The difference of the selected cells as a signed map, and a sentence about it. */
  #difference(display: Display): { frame: Frame | null; words: string } {
    const [a, b] = this.pair.map((index) => this.#cells[index]);
    if (!a || !b) return { frame: null, words: NONE };
    if (a.partial || b.partial) return { frame: null, words: PARTIAL };
    if (!a.frame || !b.frame) return { frame: null, words: UNREADY };
    const alike = a.model.get("group") === b.model.get("group");
    const units = alike ? ([1, 1] as const) : ([unit(a, display), unit(b, display)] as const);
    const key = [a.frame, b.frame, ...units];
    if (!this.#last?.key.every((k, i) => Object.is(k, key[i]))) {
      this.#last = { key, frame: difference(a.frame, b.frame, units) };
    }
    const { frame } = this.#last;
    if (!frame) return { frame, words: SIZES };
    return { frame, words: alike ? COMPARED : RELATIVE };
  }

  paint(display: Display): void {
    if (!(this.root as HTMLDetailsElement).open) return;
    const { frame, words } = this.#difference(display);
    setText(this.#words, words);
    this.#body.hidden = !frame;
    const first = this.#cells[this.pair[0]];
    if (!frame || !first) return;
    if (first.scene) {
      this.#showScene(first.scene)?.paint(frame, display, this.#composer);
    } else {
      this.#stageBox.style.setProperty("--sw-ratio", String(first.size.width / first.size.height));
      this.#stage.draw(this.#composer.blend(frame, first.image, display), []);
    }
    const { row, ticks } = this.#composer.bar(frame, display, 3);
    drawBar(this.#bar, this.#ticks, row, ticks);
  }

  /** The first map's input, which is not an image. */
  #showScene(raw: RawScene): Scene | null {
    if (!this.#scene) {
      this.#scene = sceneOf(raw, {
        ...READ_ONLY,
        life: this.life,
        read: () => {
          const spot = this.#scene?.spot;
          this.acts.point((spot && this.#cells[this.pair[0]]?.spotAt(spot.x, spot.y)) ?? null);
        },
        repaint: () => this.acts.repaint(),
      });
      if (this.#scene) showScene(this.#stageBox, this.#scene);
    }
    if (raw !== this.#shown) this.#scene?.load(raw);
    this.#shown = raw;
    return this.#scene;
  }

  say(spot: Spot | null): void {
    const frame = this.#last?.frame;
    const size = this.#scene?.size ?? frame;
    const at = size && frame && !this.#body.hidden ? pixelAt(spot, size) : null;
    this.#scene?.readAt?.(at);
    this.#cursor.hidden = !at;
    if (!size || !frame || !at) {
      setText(this.#reading, "");
      return;
    }
    const { x, y } = at;
    this.#cursor.style.left = `${((x + 0.5) / size.width) * 100}%`;
    this.#cursor.style.top = `${((y + 0.5) / size.height) * 100}%`;
    const { value } = this.#composer.read(frame, size, x, y);
    const where = this.#scene ? this.#scene.reading(null, this.#composer) : `x ${x}, y ${y}`;
    setText(this.#reading, value === null ? "" : `${where} · difference ${formatNumber(value)}`);
  }
}

/** The divisor of a map's values if the two maps have different units. */
function unit(cell: GridCell, display: Display): number {
  const { frame } = cell;
  const limits = cell.ownLimits(display);
  if (!frame || !limits) return 1;
  const top = frame.signed ? 32767 : 65534;
  return (limits[1] / top) * frame.high || frame.high || 1;
}
