// The region that the tools of a scene mark: its mask, how much of it is marked, and the button that clears it.

import { toBytes } from "../core/frame.ts";
import { Mask } from "../core/mask.ts";
import { make, setText } from "../shell/elements.ts";
import type { RawRegion } from "./region.ts";
import type { SceneHost } from "./scene.ts";

export class MarkedRegion {
  readonly clear = make(
    "button",
    "tool",
    { type: "button", title: "Clear the marked region; by key: Delete" },
    ["Clear"],
  );
  readonly words = make("span", "region-words", { "aria-live": "polite" });
  mask: Mask | null = null;
  /** Rises with each change. */
  version = 0;

  /**
   * @param changed called when the region needs to be painted
   * @param decimals of the share that is marked, in percent
   */
  constructor(
    private readonly host: SceneHost,
    private readonly changed: () => void,
    private readonly decimals: (share: number) => number,
  ) {
    this.clear.addEventListener("click", () => this.empty(), { signal: host.life });
  }

  reset(width: number, height: number): void {
    this.mask = new Mask(width, height);
    this.touch();
  }

  /** Load a region sent by the kernel; false if it has another size. */
  load({ width, height, bits }: RawRegion): boolean {
    const mask = this.mask;
    if (mask?.width !== width || mask.height !== height) return false;
    mask.load(toBytes(bits));
    this.touch();
    return true;
  }

  empty(): void {
    this.mask?.clear();
    this.touch();
    this.send();
  }

  send(): void {
    const mask = this.mask;
    if (mask) this.host.mark({ width: mask.width, height: mask.height, bits: mask.pack() });
  }

  /** What a key does while marking; undefined if nothing. */
  key(name: string, mark: () => void): (() => void) | undefined {
    if (name === "Delete" || name === "Backspace") return () => this.empty();
    if (name === " " || name === "Enter") return mark;
    return undefined;
  }

  /** Show a change of the mask. */
  touch(): void {
    this.version++;
    const mask = this.mask;
    const count = mask?.count ?? 0;
    this.clear.disabled = !count;
    const share = mask && count ? (100 * count) / (mask.width * mask.height) : 0;
    setText(this.words, count ? `${share.toFixed(this.decimals(share))} % marked` : "Nothing marked yet");
    this.changed();
  }
}
