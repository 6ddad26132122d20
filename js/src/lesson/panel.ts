// A panel of a step: an image, map, text or chart with its caption, color scale and the value under the pointer.

import type { Limits } from "../core/clip.ts";
import { Composer } from "../core/compose.ts";
import type { Display } from "../core/display.ts";
import type { Frame, Pixels, Raster } from "../core/frame.ts";
import { numberText, readingText } from "../core/text.ts";
import type { Scene } from "../heatmap/scene.ts";
import { sceneOf } from "../heatmap/scenes.ts";
import { drawBar } from "../shell/bar.ts";
import { fill, make, setText } from "../shell/elements.ts";
import { Inspector } from "../shell/inspector.ts";
import { Stage } from "../shell/stage.ts";
import { drawBars, drawCurve, drawValues, drawVector, WIDE } from "./chart.ts";
import type { Panel } from "./content.ts";
import { fillTokens, type RawText } from "./tokens.ts";

const TICKS = 3;
/** The ratio of width and height of a map of numbers, with the names of its rows. */
const NUMBERS = 2;

/** The contents of a panel, resolved from the names in it. */
export interface Seen {
  panel: Panel;
  image: Pixels | null;
  frame: Frame | null;
  scale: Frame | null;
  /** The lesson's scene, if the panel shows it. */
  scene: RawText | null;
  /** null if the color tables are missing. */
  display: Display | null;
}

/** The pixels to paint: the map over its image, the map alone, or the image. */
export function pixelsOf(composer: Composer, { image, frame, scale, display }: Seen): Pixels | null {
  if (!frame || !display) return image;
  return composer.blend(frame, image, display, composer.limits(scale ?? frame, display));
}

/** A composer with the color scale of another map. */
class Scaled extends Composer {
  scale: Frame | null = null;

  override limits(frame: Frame, display: Display): Limits {
    return super.limits(this.scale ?? frame, display);
  }
}

export class PanelView {
  readonly #canvas = make("canvas", "lesson-canvas", { role: "img" });
  readonly #cursor = make("div", "cursor", { hidden: "" });
  readonly #drawing = make("div", "lesson-drawing");
  readonly #tokens = make("ol", "lesson-tokens", { "aria-label": "The tokens and their ids" });
  /** The text in the colors of its map, with the style of an explorer. */
  readonly #flow = make("div", "view sw-lesson-flow");
  readonly #frame = make("div", "lesson-frame", {}, [
    this.#canvas,
    this.#cursor,
    this.#drawing,
    this.#tokens,
    this.#flow,
  ]);
  readonly #rows = make("div", "lesson-rows");
  readonly #picture = make("div", "lesson-picture", {}, [this.#rows, this.#frame]);
  readonly #bar = make("canvas", "lesson-bar-scale", { "aria-hidden": "true" });
  readonly #ticks = make("div", "lesson-ticks");
  readonly #scale = make("div", "lesson-scale", {}, [this.#bar, this.#ticks]);
  readonly #caption = make("figcaption", "lesson-caption");
  readonly root = make("figure", "lesson-panel", {}, [this.#caption, this.#picture, this.#scale]);

  readonly #composer = new Scaled();
  readonly #stage = new Stage(this.#canvas);
  readonly #inspector: Inspector;
  #scene: { kind: string; view: Scene } | null = null;
  #seen: Seen | null = null;
  #size: Raster | null = null;
  #drawn: unknown = null;

  /** @param read called with the text about the pixel under the pointer, "" if there is none */
  constructor(
    private readonly read: (words: string) => void,
    private readonly life: AbortSignal,
  ) {
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
    this.#composer.scale = seen.scale;
    const { panel, scene } = seen;
    setText(this.#caption, panel.caption);
    const chart = panel.curve ?? panel.bars ?? panel.vector ?? null;
    this.#canvas.hidden = chart !== null || scene !== null;
    this.#drawing.hidden = chart === null;
    this.#tokens.hidden = scene === null || panel.map !== undefined;
    this.#flow.hidden = scene === null || panel.map === undefined;
    this.root.classList.toggle("sw-lesson-wide", scene !== null);
    this.root.classList.toggle("sw-lesson-tall", !this.#tokens.hidden);
    this.#showRows(panel);
    this.#showScale(seen);
    if (scene) return this.#showScene(seen, scene);
    if (chart) return this.#draw(panel);
    const pixels = pixelsOf(this.#composer, seen);
    this.#size = pixels;
    if (!pixels) return false;
    const ratio = panel.rows ? NUMBERS : pixels.width / pixels.height;
    this.root.style.setProperty("--sw-ratio", String(ratio));
    this.#canvas.setAttribute("aria-label", panel.caption);
    return this.#stage.draw(pixels, []);
  }

  #draw(panel: Panel): boolean {
    this.#size = null;
    const { curve, bars, vector, caption, chosen = -1 } = panel;
    const values = bars?.some(({ text }) => text !== undefined) ?? false;
    this.root.style.setProperty("--sw-ratio", String(vector || values ? WIDE : 1));
    const chart = curve ?? bars ?? vector;
    if (chart !== this.#drawn) {
      this.#drawn = chart;
      const svg = curve
        ? drawCurve(curve, caption)
        : vector
          ? drawVector(vector, caption)
          : (values ? drawValues : drawBars)(bars ?? [], chosen, caption);
      this.#drawing.replaceChildren(svg);
    }
    return true;
  }

  #showScene({ panel, frame, display }: Seen, raw: RawText): boolean {
    this.#size = null;
    const kind = raw.kind ?? "";
    if (panel.map === undefined) {
      if (this.#drawn !== raw) fillTokens(this.#tokens, raw);
      this.#drawn = raw;
      return true;
    }
    if (this.#scene?.kind !== kind) {
      const view = sceneOf(raw, {
        life: this.life,
        read: () => this.read(this.#scene?.view.reading(this.#seen?.frame ?? null, this.#composer) ?? ""),
        repaint: () => this.#seen?.scene && this.show(this.#seen),
        send: () => {},
        mark: () => {},
      });
      if (!view) return false;
      this.#scene = { kind, view };
      this.#flow.replaceChildren(view.root);
    }
    const { view } = this.#scene;
    view.load(raw);
    return frame !== null && display !== null && view.paint(frame, display, this.#composer);
  }

  #showRows({ rows = [], chosen }: Panel): void {
    this.#rows.hidden = !rows.length;
    fill(this.#rows, rows, (name) => make("div", "lesson-row", {}, [name]));
    [...this.#rows.children].forEach((row, i) => {
      row.classList.toggle("sw-lesson-strong", i === chosen);
    });
  }

  #showScale({ frame, display }: Seen): void {
    this.#scale.classList.toggle("sw-off", !frame || !display);
    if (!frame || !display) return;
    const drawn = this.#composer.bar(frame, display, TICKS);
    drawBar(this.#bar, this.#ticks, drawn.row, drawn.ticks);
  }

  #reading(): string {
    const pixel = this.#inspector.pixel;
    if (!pixel || !this.#size || !this.#seen) return "";
    const { panel, frame } = this.#seen;
    const reading = this.#composer.read(frame, this.#size, pixel.x, pixel.y);
    const { rows, columns } = panel;
    return rows && columns ? numberText(rows[pixel.y], columns[pixel.x], reading) : readingText(reading);
  }
}
