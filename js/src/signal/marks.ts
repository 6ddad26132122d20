// Marks intervals of a signal, of one channel or of all, with the pointer or the keyboard.

import type { Mask } from "../core/mask.ts";
import { MarkedRegion } from "../heatmap/marked.ts";
import type { RawRegion } from "../heatmap/region.ts";
import type { SceneHost } from "../heatmap/scene.ts";
import { make, setText } from "../shell/elements.ts";

type Tool = "interval" | "part" | "channel" | "pan";

interface Spot {
  channel: number;
  sample: number;
}

const TOOLS: readonly (readonly [Tool, string, string])[] = [
  ["interval", "Interval", "Drag to mark an interval of all channels; by key: Space at both ends"],
  ["part", "In one channel", "Drag to mark an interval of one channel; by key: Space at both ends"],
  ["channel", "Channel", "Click to mark a whole channel, or drag over several; by key: Space twice"],
  ["pan", "Move", "Drag to move the signal, without marking"],
];

export class Marks {
  readonly root: HTMLElement;
  readonly #tools = new Map<Tool, HTMLButtonElement>();
  readonly #region: MarkedRegion;
  #tool: Tool = "interval";
  #from: Spot | null = null;
  #corner: Spot | null = null;
  #on = false;

  /**
   * @param cursor the sample at the keyboard cursor
   * @param changed called when the marked region needs to be painted
   */
  constructor(
    host: SceneHost,
    private readonly cursor: () => Spot | null,
    changed: () => void,
  ) {
    this.#region = new MarkedRegion(host, changed, () => 1);
    const listen = { signal: host.life };
    for (const [tool, label, title] of TOOLS) {
      const button = make("button", "tool", { type: "button", title }, [label]);
      button.addEventListener("click", () => this.#choose(tool), listen);
      this.#tools.set(tool, button);
    }
    this.root = make("div", "marks", { role: "toolbar", "aria-label": "Mark a region", hidden: "" }, [
      make("div", "tools", { role: "group", "aria-label": "Tool" }, [...this.#tools.values()]),
      make("div", "tools", {}, [this.#region.clear]),
      this.#region.words,
    ]);
    this.#choose("interval");
  }

  /** The marked region with its version; null if nothing is marked. */
  get marked(): { mask: Mask; version: number } | null {
    const { mask, version } = this.#region;
    return this.#on && mask?.count ? { mask, version } : null;
  }

  reset(samples: number, channels: number): void {
    this.#from = null;
    this.#corner = null;
    this.#region.reset(samples, channels);
  }

  /** Show or hide the tools, which are visible while a test needs a region. */
  show(on: boolean): void {
    this.#on = on;
    this.root.hidden = !on;
    this.#from = null;
    this.#corner = null;
    this.#region.touch();
  }

  /** Load a region sent by the kernel. */
  load(region: RawRegion): void {
    this.#region.load(region);
  }

  /** Begin an interval; false if the pointer moves the signal instead. */
  begin(spot: Spot): boolean {
    if (!this.#on || this.#tool === "pan" || !this.#region.mask) return false;
    this.#corner = null;
    this.#from = spot;
    this.reach(spot);
    return true;
  }

  /** Extend the interval, which replaces the one before. */
  reach(spot: Spot): void {
    const { mask } = this.#region;
    const from = this.#from;
    if (!from || !mask) return;
    const boxes = {
      interval: [from.sample, spot.sample, 0, mask.height - 1],
      part: [from.sample, spot.sample, from.channel, from.channel],
      channel: [0, mask.width - 1, from.channel, spot.channel],
      pan: [0, -1, 0, -1],
    };
    const [left, right, top, bottom] = boxes[this.#tool];
    mask.clear();
    mask.box({ x: left, y: top }, { x: right, y: bottom }, true);
    this.#region.touch();
  }

  end(): void {
    if (!this.#from) return;
    this.#from = null;
    this.#region.send();
  }

  /** What a key does; undefined if nothing. */
  key(name: string): (() => void) | undefined {
    return this.#on ? this.#region.key(name, () => this.#mark()) : undefined;
  }

  #mark(): void {
    const spot = this.cursor();
    if (!spot || this.#tool === "pan") return;
    if (!this.#corner) {
      this.#corner = spot;
      setText(this.#region.words, "One end is set: press Space at the other end");
      return;
    }
    this.#from = this.#corner;
    this.#corner = null;
    this.reach(spot);
    this.end();
  }

  #choose(tool: Tool): void {
    this.#tool = tool;
    this.#corner = null;
    for (const [name, button] of this.#tools) button.setAttribute("aria-pressed", String(name === tool));
  }
}
