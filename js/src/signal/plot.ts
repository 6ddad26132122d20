// Draws the lanes of a signal on a canvas: a line for each channel, in the colors of its values.

import type { Limits } from "../core/clip.ts";
import type { Composer } from "../core/compose.ts";
import { decimate, type Edges, edgesOf, strongest } from "../core/decimate.ts";
import type { Display } from "../core/display.ts";
import type { Frame, Pixels } from "../core/frame.ts";
import type { Mask } from "../core/mask.ts";
import type { ViewRange } from "../core/view-range.ts";
import type { Rgb } from "../shell/theme.ts";

/** A signal, channel by channel. */
export interface Signal {
  readonly values: Float32Array;
  readonly channels: number;
  readonly samples: number;
}

/** The lanes that are visible, in pixels of the page. */
export interface Layout {
  readonly width: number;
  readonly height: number;
  /** How far the lanes are scrolled. */
  readonly top: number;
  readonly lane: number;
}

const MARGIN = 5;
const LINE = 2;
const HALO = 7;

/** The ground of the page, and the color of a line without any value. */
export interface Colors {
  readonly ground: Rgb;
  readonly ink: Rgb;
}

export class Plot {
  readonly #context: CanvasRenderingContext2D | null;
  readonly #line = document.createElement("canvas");
  readonly #halo = document.createElement("canvas");
  readonly #colors = document.createElement("canvas");
  readonly #colored = document.createElement("canvas");
  #signal: Signal = { values: new Float32Array(0), channels: 0, samples: 0 };
  #limits: [low: number, high: number][] = [];
  #edges: Edges = new Int32Array(1);
  #edgesKey = "";
  #ends: (Float32Array | undefined)[] = [];
  #lineKey = "";
  #codes: Frame | null = null;
  #codesOf: Frame | null = null;
  #codesKey = "";
  readonly #grounds = new Map<string, Pixels>();
  #marked: (Uint8Array | undefined)[] = [];
  #markedKey = "";

  constructor(readonly canvas: HTMLCanvasElement) {
    this.#context = canvas.getContext("2d");
  }

  load(signal: Signal): void {
    this.#signal = signal;
    this.#limits = Array.from({ length: signal.channels }, (_, channel) => {
      const whole = decimate(
        signal.values,
        channel * signal.samples,
        edgesOf(0, signal.samples, 1, signal.samples),
      );
      return [whole[0], whole[1]];
    });
    this.#edgesKey = "";
    this.#codesOf = null;
  }

  /** The smallest and the largest value of a channel. */
  limits(channel: number): readonly [low: number, high: number] {
    return this.#limits[channel] ?? [0, 0];
  }

  /** The position of a value in its lane, in pixels of the page from the lane's top. */
  height(channel: number, value: number, lane: number): number {
    const [low, high] = this.limits(channel);
    const share = high > low ? (value - low) / (high - low) : 0.5;
    return lane - MARGIN - share * (lane - 2 * MARGIN);
  }

  /**
   * Draw the visible lanes; returns false if there is no room.
   *
   * @param map the map, or null before the first one: the lines are then drawn without it
   * @param marks the marked region and its version
   */
  draw(
    view: ViewRange,
    layout: Layout,
    { ground, ink }: Colors,
    map: { frame: Frame; display: Display; composer: Composer; limits: Limits | undefined } | null,
    marks: { mask: Mask; version: number } | null,
  ): boolean {
    const context = this.#context;
    const ratio = devicePixelRatio;
    const width = Math.round(layout.width * ratio);
    const height = Math.round(layout.height * ratio);
    const { channels } = this.#signal;
    if (!context || width < 1 || height < 1 || channels < 1) return false;
    resize(this.canvas, width, height);
    const first = Math.min(channels - 1, Math.floor(layout.top / layout.lane));
    const last = Math.min(channels, Math.ceil((layout.top + layout.height) / layout.lane));
    const lanes: Lanes = { first, last, width, height, ratio, top: layout.top, lane: layout.lane };
    this.#divide(view, width);
    this.#drawLines(view, lanes, ink);
    context.clearRect(0, 0, width, height);
    context.fillStyle = `rgba(${ink.join(", ")}, 0.22)`;
    for (let lane = first + 1; lane < last; lane++) {
      context.fillRect(0, Math.round((lane * layout.lane - layout.top) * ratio), width, 1);
    }
    if (map) {
      const { frame, display, composer } = map;
      const codes = this.#decimated(frame, first, frame.height === 1 ? 1 : last - first, width);
      const limits = map.limits ?? composer.limits(frame, display);
      for (const [line, under] of [[this.#halo, ground] as const, [this.#line, ink] as const]) {
        const pixels = composer.blend(codes, this.#plain(width, codes.height, under), display, limits);
        this.#color(line, lanes, pixels);
        context.drawImage(this.#colored, 0, 0);
      }
    } else {
      context.drawImage(this.#line, 0, 0);
    }
    if (marks) this.#drawMarks(context, lanes, ink, marks.mask, marks.version);
    return true;
  }

  #divide(view: ViewRange, columns: number): void {
    const { samples } = this.#signal;
    const key = `${view.from} ${view.to} ${columns}`;
    if (key === this.#edgesKey) return;
    this.#edgesKey = key;
    this.#edges = edgesOf(view.from, view.to, columns, samples);
    this.#ends = [];
    this.#lineKey = "";
    this.#codesKey = "";
  }

  /** Draw the lines, thin and wide, in one color; their pixels are colored afterwards. */
  #drawLines(view: ViewRange, lanes: Lanes, ink: Rgb): void {
    const { first, last, width, height, ratio, top, lane } = lanes;
    const key = [this.#edgesKey, first, last, height, ratio, top, lane, ink].join(" ");
    if (key === this.#lineKey) return;
    this.#lineKey = key;
    for (const [canvas, thickness] of [[this.#line, LINE] as const, [this.#halo, HALO] as const]) {
      resize(canvas, width, height);
      const context = canvas.getContext("2d");
      if (!context) continue;
      context.clearRect(0, 0, width, height);
      context.fillStyle = `rgb(${ink.join(", ")})`;
      context.strokeStyle = context.fillStyle;
      context.lineWidth = thickness * ratio;
      context.lineJoin = "round";
      for (let channel = first; channel < last; channel++) {
        const y = (value: number) => ratio * (channel * lane - top + this.height(channel, value, lane));
        if (view.span < width) this.#strokeSamples(context, view, width, channel, y);
        else this.#fillColumns(context, channel, y);
      }
    }
  }

  /** Draw a line through all samples, at the centers of their intervals. */
  #strokeSamples(
    context: CanvasRenderingContext2D,
    view: ViewRange,
    width: number,
    channel: number,
    y: (value: number) => number,
  ): void {
    const { values, samples } = this.#signal;
    const from = Math.max(0, Math.floor(view.from) - 1);
    const to = Math.min(samples, Math.ceil(view.to) + 1);
    const across = width / view.span;
    const at = (k: number) => y(values[channel * samples + k]);
    context.beginPath();
    // The first and the last sample are drawn to the ends of their intervals.
    if (from === 0) context.lineTo(-view.from * across, at(0));
    for (let k = from; k < to; k++) context.lineTo((k + 0.5 - view.from) * across, at(k));
    if (to === samples) context.lineTo((samples - view.from) * across, at(samples - 1));
    context.stroke();
  }

  /** Fill each column from its lowest to its highest value; a stroke of so many points takes much longer. */
  #fillColumns(context: CanvasRenderingContext2D, channel: number, y: (value: number) => number): void {
    const ends =
      this.#ends[channel] ?? decimate(this.#signal.values, channel * this.#signal.samples, this.#edges);
    this.#ends[channel] = ends;
    const thick = context.lineWidth;
    const wide = Math.max(1, 2 * Math.floor(thick / 2) - 1);
    for (let i = 0; i < ends.length; i += 2) {
      // As far as the column before, so that the line has no gaps.
      const low = y(i > 0 ? Math.min(ends[i], ends[i - 1]) : ends[i]);
      const high = y(i > 0 ? Math.max(ends[i + 1], ends[i - 2]) : ends[i + 1]);
      context.fillRect(i / 2 - (wide - 1) / 2, high - thick / 2, wide, low - high + thick);
    }
  }

  /** Color a drawn line: each column has the color of its value that is farthest from zero. */
  #color(line: HTMLCanvasElement, lanes: Lanes, pixels: Pixels): void {
    const { first, last, width, height, ratio, top, lane } = lanes;
    resize(this.#colors, width, pixels.height);
    const image = new ImageData(pixels.data, width, pixels.height);
    this.#colors.getContext("2d")?.putImageData(image, 0, 0);
    resize(this.#colored, width, height);
    const context = this.#colored.getContext("2d");
    if (!context) return;
    context.globalCompositeOperation = "copy";
    context.drawImage(line, 0, 0);
    context.globalCompositeOperation = "source-atop";
    context.imageSmoothingEnabled = false;
    for (let channel = first; channel < last; channel++) {
      const row = pixels.height === 1 ? 0 : channel - first;
      context.drawImage(
        this.#colors,
        0,
        row,
        width,
        1,
        0,
        (channel * lane - top) * ratio,
        width,
        lane * ratio,
      );
    }
  }

  #decimated(frame: Frame, first: number, rows: number, width: number): Frame {
    const key = [this.#edgesKey, first, rows].join(" ");
    if (this.#codes && this.#codesOf === frame && key === this.#codesKey) return this.#codes;
    const codes = new Uint16Array(rows * width);
    const skipped = frame.height === 1 ? 0 : first;
    for (let row = 0; row < rows; row++) {
      strongest(frame.codes, (skipped + row) * frame.width, this.#edges, frame.signed, codes, row * width);
    }
    this.#codesOf = frame;
    this.#codesKey = key;
    this.#codes = { ...frame, width, height: rows, codes };
    return this.#codes;
  }

  /** One color, to blend the values over. */
  #plain(width: number, height: number, color: Rgb): Pixels {
    const key = [width, height, color].join(" ");
    let pixels = this.#grounds.get(key);
    if (!pixels) {
      const data = new Uint8ClampedArray(4 * width * height);
      for (let i = 0; i < data.length; i += 4) data.set([...color, 255], i);
      pixels = { width, height, data };
      if (this.#grounds.size > 3) this.#grounds.clear();
      this.#grounds.set(key, pixels);
    }
    return pixels;
  }

  #drawMarks(context: CanvasRenderingContext2D, lanes: Lanes, ink: Rgb, mask: Mask, version: number): void {
    const { first, last, ratio, top, lane } = lanes;
    const key = `${this.#edgesKey} ${version}`;
    if (key !== this.#markedKey) {
      this.#markedKey = key;
      this.#marked = [];
    }
    context.fillStyle = `rgba(${ink.join(", ")}, 0.28)`;
    for (let channel = first; channel < last; channel++) {
      const marked = this.#marked[channel] ?? mask.columns(channel, this.#edges);
      this.#marked[channel] = marked;
      const y = Math.round((channel * lane - top) * ratio) + 1;
      for (const [from, to] of runsOf(marked)) {
        context.fillRect(from, y, to - from, Math.round(lane * ratio) - 1);
      }
    }
  }
}

interface Lanes {
  readonly first: number;
  readonly last: number;
  readonly width: number;
  readonly height: number;
  readonly ratio: number;
  readonly top: number;
  readonly lane: number;
}

function resize(canvas: HTMLCanvasElement, width: number, height: number): void {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}

/** The runs of ones, as pairs of the first index and the one after the last. */
function runsOf(bits: Uint8Array): [from: number, to: number][] {
  const runs: [number, number][] = [];
  for (let i = 0; i < bits.length; i++) {
    if (!bits[i]) continue;
    const from = i;
    while (i < bits.length && bits[i]) i++;
    runs.push([from, i]);
  }
  return runs;
}
