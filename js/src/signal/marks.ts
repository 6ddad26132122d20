// Marks intervals of a signal, of one channel or of all, with the pointer or the keyboard.

import { toBytes } from "../core/frame.ts";
import { Mask } from "../core/mask.ts";
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
  readonly #clear: HTMLButtonElement;
  readonly #words = make("span", "region-words", { "aria-live": "polite" });
  #mask: Mask | null = null;
  #version = 0;
  #tool: Tool = "interval";
  #from: Spot | null = null;
  #corner: Spot | null = null;
  #on = false;

  /**
   * @param cursor the sample at the keyboard cursor
   * @param changed called when the marked region needs to be painted
   */
  constructor(
    private readonly host: SceneHost,
    private readonly cursor: () => Spot | null,
    private readonly changed: () => void,
  ) {
    const listen = { signal: host.life };
    for (const [tool, label, title] of TOOLS) {
      const button = make("button", "tool", { type: "button", title }, [label]);
      button.addEventListener("click", () => this.#choose(tool), listen);
      this.#tools.set(tool, button);
    }
    this.#clear = make(
      "button",
      "tool",
      { type: "button", title: "Clear the marked region; by key: Delete" },
      ["Clear"],
    );
    this.#clear.addEventListener("click", () => this.#empty(), listen);
    this.root = make("div", "marks", { role: "toolbar", "aria-label": "Mark a region", hidden: "" }, [
      make("div", "tools", { role: "group", "aria-label": "Tool" }, [...this.#tools.values()]),
      make("div", "tools", {}, [this.#clear]),
      this.#words,
    ]);
    this.#choose("interval");
  }

  /** The marked region with its version; null if nothing is marked. */
  get marked(): { mask: Mask; version: number } | null {
    return this.#on && this.#mask?.count ? { mask: this.#mask, version: this.#version } : null;
  }

  reset(samples: number, channels: number): void {
    this.#mask = new Mask(samples, channels);
    this.#from = null;
    this.#corner = null;
    this.#changed();
  }

  /** Show or hide the tools, which are visible while a test needs a region. */
  show(on: boolean): void {
    this.#on = on;
    this.root.hidden = !on;
    this.#from = null;
    this.#corner = null;
    this.#changed();
  }

  /** Load a region sent by the kernel. */
  load({ width, height, bits }: RawRegion): void {
    const mask = this.#mask;
    if (mask?.width !== width || mask.height !== height) return;
    mask.load(toBytes(bits));
    this.#changed();
  }

  /** Begin an interval; false if the pointer moves the signal instead. */
  begin(spot: Spot): boolean {
    if (!this.#on || this.#tool === "pan" || !this.#mask) return false;
    this.#corner = null;
    this.#from = spot;
    this.reach(spot);
    return true;
  }

  /** Extend the interval, which replaces the one before. */
  reach(spot: Spot): void {
    const mask = this.#mask;
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
    this.#changed();
  }

  end(): void {
    if (!this.#from) return;
    this.#from = null;
    this.#send();
  }

  /** What a key does; undefined if nothing. */
  key(name: string): (() => void) | undefined {
    if (!this.#on) return undefined;
    if (name === "Delete" || name === "Backspace") return () => this.#empty();
    if (name === " " || name === "Enter") return () => this.#mark();
    return undefined;
  }

  #mark(): void {
    const spot = this.cursor();
    if (!spot || this.#tool === "pan") return;
    if (!this.#corner) {
      this.#corner = spot;
      setText(this.#words, "One end is set: press Space at the other end");
      return;
    }
    this.#from = this.#corner;
    this.#corner = null;
    this.reach(spot);
    this.end();
  }

  #empty(): void {
    this.#mask?.clear();
    this.#changed();
    this.#send();
  }

  #send(): void {
    const mask = this.#mask;
    if (mask) this.host.mark({ width: mask.width, height: mask.height, bits: mask.pack() });
  }

  #choose(tool: Tool): void {
    this.#tool = tool;
    this.#corner = null;
    for (const [name, button] of this.#tools) button.setAttribute("aria-pressed", String(name === tool));
  }

  #changed(): void {
    this.#version++;
    const mask = this.#mask;
    const count = mask?.count ?? 0;
    this.#clear.disabled = !count;
    const share = mask && count ? (100 * count) / (mask.width * mask.height) : 0;
    setText(this.#words, share > 0 ? `${share.toFixed(1)} % marked` : "Nothing marked yet");
    this.changed();
  }
}
