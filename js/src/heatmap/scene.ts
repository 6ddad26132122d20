// What a view shows instead of an image, such as a text: each kind of input has a class in its own folder.

import type { Limits } from "../core/clip.ts";
import type { Composer } from "../core/compose.ts";
import type { Display } from "../core/display.ts";
import type { Frame, Raster } from "../core/frame.ts";
import type { Spot } from "../core/mask.ts";
import type { RawRegion } from "./region.ts";

/** The value of the `scene` trait; `{}` for an image. */
export interface RawScene {
  kind?: string;
  [name: string]: unknown;
}

/** What a scene can ask of its view. */
export interface SceneHost {
  /** Aborted when the view is removed. */
  readonly life: AbortSignal;
  /** Whether the scene is a cell of a grid, which only shows and reads: it has no tools and takes no focus. */
  readonly cell?: boolean;
  /** Show the reading again, because another token or sample is read. */
  read(): void;
  /** Paint in the next animation frame. */
  repaint(): void;
  /** Send a message to the kernel, with "type": "scene". */
  send(message: object): void;
  /** Send a marked region to the kernel: a packed mask, as numpy.packbits has it. */
  mark(region: RawRegion): void;
}

export interface Scene {
  readonly root: HTMLElement;
  /** What to do to see a reading, such as "Point at a token, or use the arrow keys". */
  readonly hint: string;
  load(raw: RawScene): void;
  /**
   * Paint the map; false if it doesn't fit what is shown.
   *
   * @param limits of the color scale; default: the map's own percentiles
   */
  paint(frame: Frame, display: Display, composer: Composer, limits?: Limits): boolean;
  /** The reading of what is pointed at; null if nothing is. */
  reading(frame: Frame | null, composer: Composer): string | null;
  /** The number of columns and rows that can be read. */
  readonly size?: Raster;
  /** The column and the row that are read; null if none are. */
  readonly spot?: Spot | null;
  /** Read a column and a row, without reporting it to the host. */
  readAt?(spot: Spot | null): void;
  /** A map with the levels of the whole input, if the frame shows only a part of it. */
  whole?(frame: Frame): Frame;
  /** The ends of the color scale, if the frame shows only a part of the map; null for those of the frame. */
  limits?(frame: Frame, display: Display): Limits | null;
  /** Show or hide the tools that mark a region. */
  allowMarking?(on: boolean): void;
  /** Show a region that the kernel has marked. */
  showRegion?(region: RawRegion): void;
}
