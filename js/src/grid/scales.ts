// Determines which cells share a color scale, and the ends of that scale.

import type { Display } from "../core/display.ts";
import { type Ends, type Pooled, sharedEnds } from "../core/scale.ts";
import type { Scale } from "./bars.ts";
import type { GridCell } from "./cell.ts";

interface Entry {
  readonly pooled: readonly (Pooled | null)[];
  readonly clip: readonly [number, number];
  readonly ends: Ends;
}

export class Scales {
  readonly #cache = new Map<string, Entry>();

  constructor(private readonly isLocked: (cell: GridCell) => boolean) {}

  clear(): void {
    this.#cache.clear();
  }

  /** The ends of the scale that a cell shares with its group; null if it has its own scale. */
  ends(cell: GridCell, cells: readonly GridCell[], display: Display): Ends | null {
    if (!cell.frame || !this.isLocked(cell)) return null;
    const { group } = cell;
    const pooled = cells.filter((c) => c.frame && this.isLocked(c) && c.group === group).map((c) => c.pooled);
    const { clip } = display;
    const cached = this.#cache.get(group);
    if (cached && cached.clip[0] === clip[0] && cached.clip[1] === clip[1] && same(cached.pooled, pooled)) {
      return cached.ends;
    }
    const maps = pooled.filter((one): one is Pooled => one !== null);
    const ends = sharedEnds(maps, cell.frame.signed, clip);
    this.#cache.set(group, { pooled, clip, ends });
    return ends;
  }

  /** The scales in use, shared ones first. */
  shown(cells: readonly GridCell[], display: Display): Scale[] {
    const scales = new Map<string, Scale>();
    for (const cell of cells) {
      const { frame } = cell;
      if (!frame) continue;
      const ends = this.ends(cell, cells, display);
      const name = ends ? String(cell.model.get("group") ?? "") : "Each map separately";
      const key = ends ? cell.group : `separate ${frame.signed}`;
      if (!scales.has(key)) scales.set(key, { name, signed: frame.signed, ends });
    }
    return [...scales.values()].sort((a, b) => Number(!a.ends) - Number(!b.ends));
  }
}

function same(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((one, i) => one === b[i]);
}
