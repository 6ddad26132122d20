// A signal as lanes over time, one for each channel, with an axis, zoom, a cursor and marked intervals.

import type { Limits } from "../core/clip.ts";
import type { Composer } from "../core/compose.ts";
import { roundTicks } from "../core/decimate.ts";
import type { Display } from "../core/display.ts";
import { type Frame, type Raster, toBytes } from "../core/frame.ts";
import type { Spot as MapSpot } from "../core/mask.ts";
import { formatNumber, signalText } from "../core/text.ts";
import { ViewRange } from "../core/view-range.ts";
import type { RawRegion } from "../heatmap/region.ts";
import type { RawScene, Scene, SceneHost } from "../heatmap/scene.ts";
import { make, setText } from "../shell/elements.ts";
import { watchSize } from "../shell/stage.ts";
import { followTheme, groundOf, inkOf } from "../shell/theme.ts";
import { Marks } from "./marks.ts";
import { Plot } from "./plot.ts";

/** A signal, as the kernel sends it. */
export interface RawSignal extends RawScene {
  /** float32, little-endian, channel by channel. */
  values?: DataView | ArrayBuffer;
  channels?: number;
  samples?: number;
  names?: string[];
  /** Samples per second; null to count samples. */
  rate?: number | null;
}

/** The limits of a lane's height, and the height for all lanes, in pixels of the page. */
const LARGE = { lowest: 56, tallest: 170, room: 400 };
const SMALL = { lowest: 24, tallest: 90, room: 140 };
const ZOOM = 1.5;
const INK = 0.5;

/** The channel and the sample at the cursor. */
export interface Spot {
  channel: number;
  sample: number;
}

export class SignalScene implements Scene {
  readonly hint = "Point at a sample, or use the arrow keys; + and − zoom";
  readonly root: HTMLElement;
  readonly #canvas = make("canvas", "lanes-canvas", { tabindex: "0", role: "img" });
  readonly #labels = make("div", "lane-names");
  readonly #axis = make("div", "time-axis", { "aria-hidden": "true" });
  readonly #unit = make("span", "time-unit");
  readonly #cursor = make("div", "signal-cursor", { hidden: "" });
  readonly #dot = make("div", "signal-dot", { hidden: "" });
  readonly #sheet = make("div", "lanes-sheet");
  readonly #scroller: HTMLElement;
  readonly #range = make("span", "range-words");
  readonly #buttons: Record<"in" | "out" | "whole", HTMLButtonElement>;
  readonly #plot: Plot;
  readonly #marks: Marks;
  #names: string[] = [];
  #values = new Float32Array(0);
  #channels = 0;
  #samples = 0;
  #rate: number | null = null;
  #lane = LARGE.lowest;
  #view = new ViewRange(0);
  #spot: Spot | null = null;
  #drag: { x: number; from: number } | null = null;
  #painted: [Frame, Display, Composer, Limits | undefined] | null = null;

  constructor(private readonly host: SceneHost) {
    const listen = { signal: host.life };
    const press = (label: string, title: string, act: () => void) => {
      const button = make("button", "tool", { type: "button", title, "aria-label": title }, [label]);
      button.addEventListener("click", act, listen);
      return button;
    };
    this.#buttons = {
      out: press("−", "Zoom out", () => this.#zoom(1 / ZOOM)),
      in: press("+", "Zoom in", () => this.#zoom(ZOOM)),
      whole: press("Whole signal", "Show the whole signal; by double click", () => this.#reset()),
    };
    this.#marks = new Marks(
      host,
      () => this.#spot,
      () => host.repaint(),
    );
    this.#scroller = make("div", "lanes", {}, [this.#sheet]);
    this.#sheet.append(this.#labels, make("div", "lanes-stage", {}, [this.#canvas, this.#cursor, this.#dot]));
    const zoom = make("div", "tools", { role: "group", "aria-label": "Zoom" }, Object.values(this.#buttons));
    const tools = make("div", "signal-bar", {}, [zoom, this.#range, this.#marks.root]);
    this.root = make("div", "signal-scene", { role: "group", "aria-label": "The signal" }, [
      ...(host.cell ? [] : [tools]),
      this.#scroller,
      make("div", "time-row", {}, [this.#unit, this.#axis]),
    ]);
    this.#plot = new Plot(this.#canvas);
    const canvas = this.#canvas;
    canvas.addEventListener("pointermove", (event) => this.#move(event), listen);
    canvas.addEventListener("pointerleave", () => this.#drag || this.#read(null), listen);
    this.#scroller.addEventListener("scroll", () => this.#show(), listen);
    watchSize(this.#scroller, () => this.#show(), host.life);
    followTheme(() => this.#show(), host.life);
    if (host.cell) {
      canvas.removeAttribute("tabindex");
      return;
    }
    canvas.addEventListener("pointerdown", (event) => this.#down(event), listen);
    for (const name of ["pointerup", "pointercancel"] as const) {
      canvas.addEventListener(name, () => this.#up(), listen);
    }
    canvas.addEventListener("dblclick", () => this.#reset(), listen);
    canvas.addEventListener("keydown", (event) => this.#key(event), listen);
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { ...listen, passive: false });
  }

  // -- the interface of a scene --------------------------------------------------------------------------

  load({ values, channels = 0, samples = 0, names = [], rate = null }: RawSignal): void {
    const bytes = toBytes(values).slice();
    this.#values = new Float32Array(bytes.buffer, 0, bytes.length >> 2);
    if (this.#values.length !== channels * samples || samples < 1) return;
    this.#names = names;
    this.#rate = rate;
    if (samples !== this.#samples || channels !== this.#channels) {
      this.#view = new ViewRange(samples);
      this.#spot = null;
      this.#marks.reset(samples, channels);
    }
    this.#channels = channels;
    this.#samples = samples;
    const { lowest, tallest, room } = this.host.cell ? SMALL : LARGE;
    this.#lane = Math.max(lowest, Math.min(tallest, Math.floor(room / channels)));
    this.#plot.load({ values: this.#values, channels, samples });
    this.#sheet.style.height = `${channels * this.#lane}px`;
    this.#canvas.setAttribute(
      "aria-label",
      `${channels === 1 ? "A signal" : `${channels} channels`} of ${this.#duration()}, colored by attribution. ` +
        "The arrow keys read single samples; plus and minus zoom.",
    );
    this.#labels.replaceChildren(...names.map((name, channel) => this.#label(name, channel)));
    this.#show();
  }

  paint(frame: Frame, display: Display, composer: Composer, limits?: Limits): boolean {
    if (frame.width !== this.#samples || (frame.height !== 1 && frame.height !== this.#channels))
      return false;
    this.#painted = [frame, display, composer, limits];
    return this.#draw();
  }

  reading(frame: Frame | null, composer: Composer): string | null {
    const spot = this.#spot;
    if (!spot || !this.#samples) return null;
    const { channel, sample } = spot;
    const value = this.#values[channel * this.#samples + sample];
    return signalText(
      this.#names[channel] ?? "",
      this.#time(sample),
      value,
      composer.read(frame, this.size, sample, channel),
    );
  }

  allowMarking(on: boolean): void {
    this.#marks.show(on);
    this.#canvas.classList.toggle("sw-marking", on);
  }

  showRegion(region: RawRegion): void {
    this.#marks.load(region);
  }

  // -- drawing -------------------------------------------------------------------------------------------

  /** Draw again in the next animation frame; before the first map, without it. */
  #show(): void {
    if (this.#painted) this.host.repaint();
    else this.#draw();
  }

  #draw(): boolean {
    const { clientHeight: height, scrollTop: top } = this.#scroller;
    const width = this.#canvas.parentElement?.clientWidth ?? 0;
    if (!width || !height || !this.#samples) return false;
    this.#canvas.style.width = `${width}px`;
    this.#canvas.style.height = `${height}px`;
    const layout = { width, height, top, lane: this.#lane };
    const ground = groundOf(this.#scroller);
    const colors = { ground, ink: inkOf(this.root, ground, INK) };
    const [frame, display, composer, limits] = this.#painted ?? [];
    const map = frame && display && composer ? { frame, display, composer, limits } : null;
    const drawn = this.#plot.draw(this.#view, layout, colors, map, this.#marks.marked);
    this.#showAxis(width);
    this.#showCursor();
    return drawn;
  }

  #label(name: string, channel: number): HTMLElement {
    const [low, high] = this.#plot.limits(channel);
    const limits = make("span", "lane-limits", {}, [`${formatNumber(low)} to ${formatNumber(high)}`]);
    const label = make("div", "lane-name", { title: name }, [make("span", "lane-title", {}, [name]), limits]);
    label.style.height = `${this.#lane}px`;
    return label;
  }

  #showAxis(width: number): void {
    const { from, to, whole } = this.#view;
    const scale = this.#rate ?? 1;
    const { ticks, decimals } = roundTicks(from / scale, to / scale, Math.max(2, Math.floor(width / 80)));
    const labels = this.#rate ? ticks : ticks.filter(Number.isInteger);
    while (this.#axis.children.length > labels.length) this.#axis.lastChild?.remove();
    while (this.#axis.children.length < labels.length) this.#axis.append(make("span", "time-tick"));
    labels.forEach((tick, i) => {
      const label = this.#axis.children[i] as HTMLElement;
      setText(label, tick.toFixed(this.#rate ? decimals : 0));
      label.style.left = `${(100 * (tick * scale - from)) / (to - from)}%`;
    });
    setText(this.#unit, this.#rate ? "seconds" : "samples");
    setText(this.#range, whole ? this.#duration() : `${this.#time(from)} to ${this.#time(to)}`);
    this.#buttons.in.disabled = this.#view.span <= Math.min(8, this.#samples);
    this.#buttons.out.disabled = whole;
    this.#buttons.whole.disabled = whole;
  }

  #showCursor(): void {
    const spot = this.#spot;
    const { from, to, span } = this.#view;
    const inside = spot !== null && spot.sample + 1 > from && spot.sample < to;
    this.#cursor.hidden = !inside;
    this.#dot.hidden = !inside;
    if (!inside) return;
    const { channel, sample } = spot;
    const value = this.#values[channel * this.#samples + sample];
    const left = `${(100 * (sample + 0.5 - from)) / span}%`;
    this.#cursor.style.left = left;
    this.#dot.style.left = left;
    this.#dot.style.top = `${channel * this.#lane + this.#plot.height(channel, value, this.#lane)}px`;
  }

  #duration(): string {
    return this.#rate ? `${formatNumber(this.#samples / this.#rate)} s` : `${this.#samples} samples`;
  }

  #time(sample: number): string {
    if (!this.#rate) return `sample ${Math.round(sample)}`;
    const decimals = Math.min(6, Math.max(0, Math.ceil(Math.log10(this.#rate))));
    return `${(sample / this.#rate).toFixed(decimals)} s`;
  }

  // -- pointer -------------------------------------------------------------------------------------------

  #spotAt(event: PointerEvent | WheelEvent): Spot {
    const box = this.#canvas.getBoundingClientRect();
    const sample = this.#view.from + ((event.clientX - box.left) / box.width) * this.#view.span;
    const lane = (event.clientY - box.top + this.#scroller.scrollTop) / this.#lane;
    return {
      channel: Math.min(this.#channels - 1, Math.max(0, Math.floor(lane))),
      sample: Math.min(this.#samples - 1, Math.max(0, Math.floor(sample))),
    };
  }

  #down(event: PointerEvent): void {
    if (event.button !== 0 || !this.#samples) return;
    const spot = this.#spotAt(event);
    this.#canvas.setPointerCapture?.(event.pointerId);
    if (this.#marks.begin(spot)) return;
    this.#drag = { x: event.clientX, from: this.#view.from };
    this.#read(spot);
  }

  #move(event: PointerEvent): void {
    if (!this.#samples) return;
    const spot = this.#spotAt(event);
    if (this.#drag) {
      const { width } = this.#canvas.getBoundingClientRect();
      const moved = ((this.#drag.x - event.clientX) / width) * this.#view.span;
      this.#view.move(this.#drag.from + moved - this.#view.from);
      if (moved) this.#show();
      return;
    }
    this.#marks.reach(spot);
    this.#read(spot);
  }

  #up(): void {
    this.#drag = null;
    this.#marks.end();
  }

  /** Zoom once the signal has the focus, or with Ctrl: otherwise the wheel scrolls the page. */
  #wheel(event: WheelEvent): void {
    if (!this.#samples || !(event.ctrlKey || event.metaKey || document.activeElement === this.#canvas))
      return;
    // At the end of zooming out, the wheel scrolls the page again.
    if (this.#view.whole && event.deltaY > 0 && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
      this.#view.move(((event.deltaX || event.deltaY) / 600) * this.#view.span);
    } else {
      this.#view.zoom(1.0015 ** -event.deltaY, this.#spotAt(event).sample + 0.5);
    }
    this.#show();
  }

  // -- keyboard ------------------------------------------------------------------------------------------

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#samples) return;
    const last = this.#samples - 1;
    const far = event.shiftKey ? 10 : 1;
    const step = far * Math.max(1, Math.round(this.#view.span / Math.max(1, this.#canvas.clientWidth)));
    const acts: Record<string, () => void> = {
      ArrowLeft: () => this.#step(0, -step),
      ArrowRight: () => this.#step(0, step),
      ArrowUp: () => this.#step(-1, 0),
      ArrowDown: () => this.#step(1, 0),
      Home: () => this.#step(0, -last),
      End: () => this.#step(0, last),
      PageUp: () => this.#pan(-0.5),
      PageDown: () => this.#pan(0.5),
      "+": () => this.#zoom(ZOOM),
      "=": () => this.#zoom(ZOOM),
      "-": () => this.#zoom(1 / ZOOM),
      "0": () => this.#reset(),
      Escape: () => this.#read(null),
    };
    const act = this.#marks.key(event.key) ?? acts[event.key];
    if (!act || (event.key === "Escape" && !this.#spot)) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  #step(down: number, right: number): void {
    const last = this.#samples - 1;
    const middle = Math.floor((this.#view.from + this.#view.to) / 2);
    const first = Math.abs(right) < last ? middle : right > 0 ? last : 0;
    const { channel, sample } = this.#spot ?? { channel: 0, sample: first };
    const moved = this.#spot ? { down, right } : { down: 0, right: 0 };
    const to = {
      channel: Math.min(this.#channels - 1, Math.max(0, channel + moved.down)),
      sample: Math.min(last, Math.max(0, sample + moved.right)),
    };
    const { from } = this.#view;
    this.#view.reveal(to.sample);
    const lane = to.channel * this.#lane;
    const { scrollTop, clientHeight } = this.#scroller;
    if (lane < scrollTop) this.#scroller.scrollTop = lane;
    else if (lane + this.#lane > scrollTop + clientHeight) {
      this.#scroller.scrollTop = lane + this.#lane - clientHeight;
    }
    if (this.#view.from !== from) this.#show();
    this.#read(to);
  }

  #pan(share: number): void {
    this.#view.move(share * this.#view.span);
    this.#show();
  }

  #zoom(factor: number): void {
    const { from, to } = this.#view;
    const sample = this.#spot ? this.#spot.sample + 0.5 : (from + to) / 2;
    this.#view.zoom(factor, sample >= from && sample <= to ? sample : (from + to) / 2);
    this.#show();
  }

  #reset(): void {
    this.#view.reset();
    this.#show();
  }

  #read(spot: Spot | null): void {
    this.#spot = spot;
    this.#showCursor();
    this.host.read();
  }

  get size(): Raster {
    return { width: this.#samples, height: this.#channels };
  }

  get spot(): MapSpot | null {
    return this.#spot && { x: this.#spot.sample, y: this.#spot.channel };
  }

  readAt(spot: MapSpot | null): void {
    const inside = spot && spot.x < this.#samples && spot.y < this.#channels;
    this.#spot = inside ? { channel: spot.y, sample: spot.x } : null;
    this.#showCursor();
  }
}
