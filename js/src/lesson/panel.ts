// A panel of a step: an image, map or chart with its caption, color scale and the value under the pointer.

import { Composer } from "../core/compose.ts";
import type { Display } from "../core/display.ts";
import type { Frame, Pixels, Raster } from "../core/frame.ts";
import { readingText } from "../core/text.ts";
import { drawBar } from "../shell/bar.ts";
import { make, setText } from "../shell/elements.ts";
import { Inspector } from "../shell/inspector.ts";
import { Stage } from "../shell/stage.ts";
import { drawBars, drawCurve } from "./chart.ts";
import type { Panel } from "./content.ts";

const TICKS = 3;

/** The contents of a panel, resolved from the names in it. */
export interface Seen {
  panel: Panel;
  image: Pixels | null;
  frame: Frame | null;
  scale: Frame | null;
  /** null if the color tables are missing. */
  display: Display | null;
}

/** The pixels to paint: the map over its image, the map alone, or the image. */
export function pixelsOf(composer: Composer, { image, frame, scale, display }: Seen): Pixels | null {
  if (!frame || !display) return image;
  return composer.blend(frame, image, display, composer.limits(scale ?? frame, display));
}

export class PanelView {
  readonly #canvas = make("canvas", "lesson-canvas", { role: "img" });
  readonly #cursor = make("div", "cursor", { hidden: "" });
  readonly #drawing = make("div", "lesson-drawing");
  readonly #frame = make("div", "lesson-frame", {}, [this.#canvas, this.#cursor, this.#drawing]);
  readonly #bar = make("canvas", "lesson-bar-scale", { "aria-hidden": "true" });
  readonly #ticks = make("div", "lesson-ticks");
  readonly #scale = make("div", "lesson-scale", {}, [this.#bar, this.#ticks]);
  readonly #caption = make("figcaption", "lesson-caption");
  readonly root = make("figure", "lesson-panel", {}, [this.#caption, this.#frame, this.#scale]);

  readonly #composer = new Composer();
  readonly #stage = new Stage(this.#canvas);
  readonly #inspector: Inspector;
  #seen: Seen | null = null;
  #size: Raster | null = null;
  #drawn: unknown = null;

  /** @param read called with the text about the pixel under the pointer, "" if there is none */
  constructor(read: (words: string) => void, life: AbortSignal) {
    this.#bar.width = 256;
    this.#bar.height = 1;
    const elements = { canvas: this.#canvas, cursor: this.#cursor };
    this.#inspector = new Inspector(
      elements,
      () => this.#size,
      () => read(this.#reading()),
      life,
    );
  }

  /** Show the contents; returns true if pixels were painted or a chart was drawn. */
  show(seen: Seen): boolean {
    this.#seen = seen;
    const { panel } = seen;
    setText(this.#caption, panel.caption);
    const chart = panel.curve ?? panel.bars ?? null;
    this.#canvas.hidden = chart !== null;
    this.#drawing.hidden = chart === null;
    this.#showScale(seen);
    if (chart) return this.#draw(panel);
    const pixels = pixelsOf(this.#composer, seen);
    this.#size = pixels;
    if (!pixels) return false;
    this.root.style.setProperty("--sw-ratio", String(pixels.width / pixels.height));
    this.#canvas.setAttribute("aria-label", panel.caption);
    return this.#stage.draw(pixels, []);
  }

  #draw(panel: Panel): boolean {
    this.#size = null;
    this.root.style.setProperty("--sw-ratio", "1");
    const chart = panel.curve ?? panel.bars;
    if (chart !== this.#drawn) {
      this.#drawn = chart;
      const svg = panel.curve
        ? drawCurve(panel.curve, panel.caption)
        : drawBars(panel.bars ?? [], panel.chosen ?? -1, panel.caption);
      this.#drawing.replaceChildren(svg);
    }
    return true;
  }

  #showScale({ frame, scale, display }: Seen): void {
    this.#scale.classList.toggle("sw-off", !frame || !display);
    if (!frame || !display) return;
    const limits = this.#composer.limits(scale ?? frame, display);
    const drawn = this.#composer.bar(frame, display, TICKS, limits);
    drawBar(this.#bar, this.#ticks, drawn.row, drawn.ticks);
  }

  #reading(): string {
    const pixel = this.#inspector.pixel;
    if (!pixel || !this.#size || !this.#seen) return "";
    return readingText(this.#composer.read(this.#seen.frame, this.#size, pixel.x, pixel.y));
  }
}
