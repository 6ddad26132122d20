// The content of a lesson's traits, as saliency_widgets.widgets.lesson.page creates it, and moves between steps.

import { decodeFrame, type Frame, type RawFrame } from "../core/frame.ts";

export interface StepInfo {
  name: string;
  title: string;
  text: string[];
  /** The explorer's control for the same setting, and its CSS class. */
  control: string;
  control_class: string;
}

export interface Bar {
  label: string;
  /** The length, relative to the longest; negative to the left of zero. */
  share: number;
  /** The number next to the bar. Default: the share as a percentage. */
  text?: string;
}

/** The numbers of a vector. */
export interface Vector {
  values: number[];
  names: string[];
  across: string;
}

export interface Curve {
  x: number[];
  y: number[];
  at: number;
  across: string;
  up: string;
  mark: { at: number; label: string } | null;
}

/** A panel with an image, a map, a map over an image or a text, the tokens of a text, bars, a vector or a curve. */
export interface Panel {
  caption: string;
  image?: string;
  map?: string;
  /** The name of the map whose color scale is used. */
  scale?: string;
  /** Traits of the display settings; missing ones are read from the model. */
  display?: Record<string, unknown>;
  bars?: Bar[];
  chosen?: number;
  curve?: Curve;
  vector?: Vector;
  /** Whether the map colors the lesson's scene; without a map, the tokens of a text with their ids. */
  scene?: boolean;
  /** The names of the rows and the columns of a map of numbers. */
  rows?: string[];
  columns?: string[];
}

export interface Shot {
  label: string;
  text: string;
  panels: Panel[];
}

/** The content of a step; `{}` until it is computed. */
export interface Content {
  state?: "ready" | "refused" | "stopped";
  message?: string;
  remedy?: string;
  images?: Record<string, DataView>;
  maps?: Record<string, RawFrame>;
  shots?: Shot[];
  notes?: string[];
  label?: string;
  slider?: boolean;
  start?: number;
}

export function isReady(content: Content): boolean {
  return content.state === "ready" && (content.shots?.length ?? 0) > 0;
}

/** Whether the controls of two steps offer the same choices, such as the same tokens: then they move together. */
export function isSameChoice(one: Content, other: Content): boolean {
  const [labels, others] = [one, other].map(({ shots = [] }) => shots.map(({ label }) => label));
  return (
    Boolean(one.label) &&
    one.label === other.label &&
    labels.length === others.length &&
    labels.every((label, i) => label === others[i])
  );
}

/** The maps of all steps by name, each decoded once. */
export class Maps {
  readonly #raw = new Map<string, RawFrame>();
  readonly #frames = new Map<string, Frame | null>();

  /** Add the maps of a step. */
  add(maps: Record<string, RawFrame> | undefined): void {
    for (const [name, raw] of Object.entries(maps ?? {})) {
      if (this.#raw.get(name) === raw) continue;
      this.#raw.set(name, raw);
      this.#frames.delete(name);
    }
  }

  get(name: string | undefined): Frame | null {
    if (name === undefined) return null;
    const cached = this.#frames.get(name);
    if (cached !== undefined) return cached;
    const frame = decodeFrame(this.#raw.get(name));
    this.#frames.set(name, frame);
    return frame;
  }
}

export type Move = "next" | "back" | "first" | "last";

const MOVES: Record<string, Move> = {
  ArrowRight: "next",
  PageDown: "next",
  " ": "next",
  ArrowLeft: "back",
  PageUp: "back",
  Home: "first",
  End: "last",
};
/** Keys that a focused control uses itself; they don't include those of a presentation remote. */
const OF_SLIDERS = new Set(["ArrowRight", "ArrowLeft", "Home", "End", " "]);
const OF_BUTTONS = new Set([" "]);

/** The move of a key, with the focus on a slider, on a button or on neither. */
export function moveOf(key: string, focus: "slider" | "button" | "none"): Move | null {
  if (focus === "slider" && OF_SLIDERS.has(key)) return null;
  if (focus === "button" && OF_BUTTONS.has(key)) return null;
  return MOVES[key] ?? null;
}

/** The step that a move leads to, clamped to the first and the last. */
export function moved(from: number, move: Move, count: number): number {
  const to = { next: from + 1, back: from - 1, first: 0, last: count - 1 }[move];
  return Math.min(count - 1, Math.max(0, to));
}

/** "7 of 13 steps ready"; empty once all are computed. */
export function progressOf(contents: readonly Content[]): string {
  const there = contents.filter((content) => content.state).length;
  return there < contents.length ? `${there} of ${contents.length} steps ready` : "";
}
