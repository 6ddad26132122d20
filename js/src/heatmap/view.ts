// A view of one map: listens to the model's traits, keeps the newest frame, and paints in animation frames.

import type { AnyModel } from "@anywidget/types";
import { type Cause, Coalescer } from "../core/coalesce.ts";
import { Composer } from "../core/compose.ts";
import { type Display, readDisplay } from "../core/display.ts";
import type { Finding } from "../core/findings.ts";
import { decodeFrame, type Frame, type Pixels, type Raster, type RawFrame, toBytes } from "../core/frame.ts";
import { Acknowledger, Newest, receive } from "../core/order.ts";
import { pngSize } from "../core/png.ts";
import { readingText, type Status, unanswered, withoutKernel } from "../core/text.ts";
import { drawBar } from "../shell/bar.ts";
import { CheckUpLine } from "../shell/checkup.ts";
import { setText } from "../shell/elements.ts";
import { decodeImage } from "../shell/image.ts";
import { Inspector } from "../shell/inspector.ts";
import { KernelWatch } from "../shell/kernel.ts";
import { type LiveModel, resolveModel, Subscriptions } from "../shell/models.ts";
import { primeControls } from "../shell/prime.ts";
import { reserveHeight } from "../shell/reserve.ts";
import { Stage, watchSize } from "../shell/stage.ts";
import { follow, tell } from "../shell/traits.ts";
import { CopyButton } from "./copy.ts";
import { Drawings } from "./drawings.ts";
import { type Elements, keepFocus, makeElements } from "./elements.ts";
import { holdButton } from "./hold.ts";
import { type RawRegion, RegionTools } from "./region.ts";
import type { RawScene, Scene } from "./scene.ts";
import { sceneOf } from "./scenes.ts";
import { type Problem, showStatus } from "./status.ts";

const BROKEN_IMAGE: Problem = {
  message: "The image could not be decoded.",
  remedy: "The map is shown on plain gray. Run the cell again to reload the image.",
};
const NO_DISPLAY: Problem = {
  message: "The display settings of this view are missing.",
  remedy: "Only the image is shown. Run the cell again to restore the map.",
};

export class HeatmapView {
  readonly #elements: Elements = makeElements();
  readonly #life = new AbortController();
  readonly #composer = new Composer();
  readonly #newest = new Newest<Frame>();
  readonly #paints = new Coalescer((cause) => this.#paint(cause));
  readonly #acknowledge: Acknowledger;
  readonly #stage: Stage;
  readonly #inspector: Inspector;
  readonly #region: RegionTools;
  readonly #kernel: KernelWatch;
  readonly #copy: CopyButton;
  readonly #checkUp = new CheckUpLine(this.#elements.checkup);
  readonly #reserveReadings = reserveHeight(this.#elements.readings);
  readonly #displayChanges = new Subscriptions("change", () => this.#readDisplay());
  readonly #layerChanges = new Subscriptions("new-frame change:width change:height", () =>
    this.#paints.request("layer"),
  );
  readonly #drawings = new Drawings(() => this.#layers);
  readonly #drawingChanges = new Subscriptions("new-frame change:image_data", () => this.#drawings.check());

  #image: Pixels | null = null;
  #imageSize: Raster | null = null;
  #decoding = false;
  #imageTurn = 0;
  #displayModel: LiveModel | null = null;
  /** undefined until it is resolved; null without display settings. */
  #display: Display | null | undefined;
  #layers: LiveModel[] = [];
  /** What is shown instead of an image; null for images. */
  #scene: Scene | null = null;
  #painted: Frame | null = null;
  #original = false;
  #problems = new Map<"image" | "display", Problem>();

  constructor(
    private readonly model: AnyModel,
    el: HTMLElement,
  ) {
    const { root, canvas, stop, hold } = this.#elements;
    const life = this.#life.signal;
    this.#stage = new Stage(canvas);
    this.#acknowledge = new Acknowledger((stamp) => this.#send({ type: "painted", ...stamp }));
    this.#inspector = new Inspector(
      this.#elements,
      () => this.#size(),
      () => this.#showReading(),
      life,
    );
    this.#region = new RegionTools(
      this.#elements,
      () => this.#size(),
      () => this.#inspector.pixel,
      () => this.#paints.request("layer"),
      (mask) => {
        const { width, height } = mask;
        this.#sendRegion({ width, height, bits: mask.pack() });
      },
      life,
    );
    this.#elements.run.after(this.#region.root);
    holdButton(
      hold,
      (held) => {
        this.#original = held;
        this.#paints.request("display");
      },
      life,
    );
    stop.addEventListener("click", () => this.#stop(), { signal: life });
    this.#copy = new CopyButton(this.#elements, life);
    this.#kernel = new KernelWatch(model, () => this.#readStatus(), life);
    this.#kernel.watchClicks(root, ".sw-explorer", ".jupyter-button, .sw-bars, .sw-predictions");
    el.replaceChildren(root);
    const resized = () => {
      this.#reserveReadings();
      this.#checkUp.reserve();
      this.#paints.request("resize");
    };
    watchSize(canvas, resized, life);

    this.#on("plain", () => root.classList.toggle("sw-plain", this.model.get("plain") === true));
    this.#on("scene", () => this.#readScene());
    this.#on("image", () => this.#readImage());
    this.#on("frame", () => this.#readFrame());
    this.#on("status", () => this.#readStatus());
    this.#on("findings", () => this.#readCheckUp());
    this.#on("checked", () => this.#readCheckUp());
    this.#on("marking", () => this.#readMarking());
    this.#on("region", () => this.#readRegion());
    this.#on("display", () => this.#resolveDisplay());
    this.#on("layers", () => this.#resolveLayers());
    this.#on("controls", () => this.#primeControls());
  }

  /** Remove all listeners, observers and timers. */
  remove(): void {
    this.#life.abort();
    this.#paints.cancel();
    this.#acknowledge.cancel();
    this.#displayChanges.replace([]);
    this.#layerChanges.replace([]);
    this.#drawingChanges.replace([]);
    this.#elements.root.remove();
  }

  #on(trait: string, read: () => void): void {
    follow(this.model, trait, read, this.#life.signal);
  }

  #send(message: object, buffers: ArrayBuffer[] = []): void {
    tell(() => this.model.send(message, undefined, buffers));
  }

  #sendRegion({ width, height, bits }: RawRegion): void {
    this.#send({ type: "region", width, height }, [toBytes(bits).slice().buffer]);
    this.#kernel.ask();
  }

  // -- incoming traits -----------------------------------------------------------------------------------

  #readFrame(): void {
    const raw = this.model.get("frame") as RawFrame | undefined;
    if (!receive(decodeFrame(raw), raw, this.#newest, this.#acknowledge)) return;
    this.#paints.request("frame");
  }

  #readScene(): void {
    const raw = (this.model.get("scene") ?? {}) as RawScene;
    if (!this.#scene) {
      this.#scene = sceneOf(raw, {
        life: this.#life.signal,
        read: () => this.#showReading(),
        repaint: () => this.#paints.request("display"),
        send: (message) => {
          this.#send({ ...message, type: "scene" });
          this.#kernel.ask();
        },
        mark: (region) => this.#sendRegion(region),
      });
      if (this.#scene) {
        this.#elements.root.classList.add("sw-scene", `sw-${raw.kind}`);
        this.#elements.stage.after(this.#scene.root);
        this.#readMarking();
        this.#readRegion();
      }
    }
    this.#scene?.load(raw);
    this.#paints.request("display");
  }

  #readMarking(): void {
    const on = this.model.get("marking") === true;
    if (this.#scene) this.#scene.allowMarking?.(on);
    else this.#region.show(on);
  }

  #readRegion(): void {
    const region = this.model.get("region") as RawRegion | undefined;
    if (!this.#scene) this.#region.load(region);
    else if (region?.width) this.#scene.showRegion?.(region);
  }

  async #readImage(): Promise<void> {
    const bytes = toBytes(this.model.get("image") as DataView | undefined);
    const turn = ++this.#imageTurn;
    this.#decoding = true;
    this.#imageSize = null;
    const size = pngSize(bytes);
    if (size) this.#reserve(size);
    let image: Pixels | null = null;
    let problem: Problem | null = null;
    if (bytes.length > 0) {
      try {
        image = await decodeImage(bytes);
      } catch {
        problem = BROKEN_IMAGE;
      }
    }
    if (turn !== this.#imageTurn || this.#life.signal.aborted) return;
    this.#decoding = false;
    this.#image = image;
    if (image) this.#reserve(image);
    this.#report("image", problem);
    this.#paints.request("display");
  }

  async #resolveDisplay(): Promise<void> {
    const reference = this.model.get("display");
    const model = await resolveModel(this.model.widget_manager, reference);
    if (this.#life.signal.aborted || reference !== this.model.get("display")) return;
    this.#displayModel = model;
    this.#displayChanges.replace(model ? [model] : []);
    this.#kernel.follow(model);
    this.#readDisplay();
  }

  #readDisplay(): void {
    const model = this.#displayModel;
    this.#display = model && readDisplay((name) => model.get(name));
    this.#report("display", this.#display || this.model.get("plain") === true ? null : NO_DISPLAY);
    this.#paints.request("display");
  }

  async #resolveLayers(): Promise<void> {
    const references = (this.model.get("layers") ?? []) as unknown[];
    const manager = this.model.widget_manager;
    const models = await Promise.all(references.map((reference) => resolveModel(manager, reference)));
    if (this.#life.signal.aborted || references !== (this.model.get("layers") ?? references)) return;
    this.#layers = models.filter((m): m is LiveModel => m?.canvas instanceof HTMLCanvasElement);
    this.#layerChanges.replace(this.#layers);
    this.#drawingChanges.replace(this.#layers);
    this.#drawings.check(true);
    this.#paints.request("layer");
  }

  #primeControls(): void {
    const references = this.model.get("controls");
    if (!Array.isArray(references)) return;
    primeControls(this.model.widget_manager, references, this.#life.signal);
    this.#kernel.watch(this.model.widget_manager, references);
  }

  #readStatus(): void {
    const sent = (this.model.get("status") ?? {}) as Status;
    const line = this.#kernel.unanswered ? unanswered(this.#shown) : "";
    const status = this.#kernel.gone ? withoutKernel(sent, line) : sent;
    const [problem = null] = this.#problems.values();
    showStatus(this.#elements, status, problem);
    this.#copy.show(status.code ?? "");
    this.#readCheckUp();
    this.#reserveReadings();
    this.#showReading();
  }

  #readCheckUp(): void {
    const { method = "" } = (this.model.get("status") ?? {}) as Status;
    const findings = (this.model.get("findings") ?? []) as Finding[];
    this.#checkUp.show(findings, this.model.get("checked") === true, method);
  }

  #report(about: "image" | "display", problem: Problem | null): void {
    if (problem) this.#problems.set(about, problem);
    else this.#problems.delete(about);
    this.#readStatus();
  }

  #stop(): void {
    const { stop } = this.#elements;
    // Send one message per press; the next status enables or disables the button.
    stop.disabled = true;
    setText(stop, "Stopping");
    keepFocus(this.#elements);
    this.#send({ type: "stop" });
  }

  // -- rendering -----------------------------------------------------------------------------------------

  #size(): Raster | null {
    return this.#image ?? this.#newest.current ?? this.#imageSize;
  }

  #reserve({ width, height }: Raster): void {
    this.#imageSize = { width, height };
    this.#elements.root.style.setProperty("--sw-ratio", String(width / height));
    this.#elements.canvas.setAttribute(
      "aria-label",
      `Saliency map over an image of ${width} by ${height} pixels. The arrow keys read single pixels.`,
    );
  }

  #paint(cause: Cause): void {
    const frame = this.#newest.current;
    const display = this.#display;
    // The image and the display settings each request a paint when they arrive.
    if (this.#decoding || (frame && display === undefined)) return;
    const drawn = this.#scene ? this.#paintScene(this.#scene, frame) : this.#paintImage(frame);
    this.#showScale(frame, display ?? null);
    this.#showReading();
    this.#acknowledge.painted();
    if (!frame || !drawn) return;
    const { root } = this.#elements;
    const { generation, index, final } = frame;
    root.dataset.generation = String(generation);
    root.dataset.index = String(index);
    root.dataset.final = String(final);
    // A new frame may have been delayed by its image or by a hidden view.
    const detail = { generation, index, final, cause: frame === this.#painted ? cause : "frame" };
    this.#painted = frame;
    root.dispatchEvent(new CustomEvent("sw-paint", { bubbles: true, detail }));
  }

  #paintScene(scene: Scene, frame: Frame | null): boolean {
    const display = this.#display;
    return frame && display ? scene.paint(frame, display, this.#composer) : false;
  }

  #paintImage(frame: Frame | null): boolean {
    const display = this.#display;
    const { empty } = this.#elements;
    if (frame && !this.#image && !this.#imageSize) this.#reserve(frame);
    const bare = this.#original && this.#image;
    const pixels =
      frame && display && !bare ? this.#composer.blend(frame, this.#image, display) : this.#image;
    empty.hidden = pixels !== null;
    setText(empty, pixels ? "" : "No image yet");
    return pixels !== null && this.#stage.draw(pixels, this.#canvases());
  }

  *#canvases(): Iterable<HTMLCanvasElement> {
    for (const layer of this.#layers) if (layer.canvas) yield layer.canvas;
    if (this.#region.surface) yield this.#region.surface;
  }

  #showScale(frame: Frame | null, display: Display | null): void {
    const { scale, bar, ticks } = this.#elements;
    scale.classList.toggle("sw-off", !frame || !display);
    if (!frame || !display) return;
    const count = scale.clientWidth < 420 ? 3 : 5;
    const limits = this.#scene?.limits?.(frame, display) ?? undefined;
    const drawn = this.#composer.bar(frame, display, count, limits);
    drawBar(bar, ticks, drawn.row, drawn.ticks);
  }

  get #shown(): "plain" | "image" {
    return this.model.get("plain") === true ? "plain" : "image";
  }

  #showReading(): void {
    const { readout } = this.#elements;
    const frame = this.#newest.current;
    if (this.#scene) {
      const reading = this.#scene.reading(frame, this.#composer);
      readout.classList.toggle("sw-quiet", reading === null);
      setText(readout, reading ?? (frame ? this.#scene.hint : "No map yet"));
      return;
    }
    const pixel = this.#inspector.pixel;
    const size = this.#size();
    readout.classList.toggle("sw-quiet", !pixel);
    if (pixel && size) {
      setText(readout, readingText(this.#composer.read(frame, size, pixel.x, pixel.y)));
    } else if (frame) {
      setText(readout, "Point at a pixel, or use the arrow keys");
    } else {
      setText(readout, size ? "No map yet" : "");
    }
  }
}
