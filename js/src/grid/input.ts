// Pointer and keyboard input in a grid: read a pixel in all cells, move between cells, open and unlock cells.

import { type GridCell, type Spot, spotIn } from "./cell.ts";

/** The actions of a grid. */
export interface GridActions {
  cells(): readonly GridCell[];
  columns(): number;
  open(cell: GridCell): void;
  toggle(cell: GridCell): void;
  /** The point that is read. */
  spot(): Spot | null;
  point(spot: Spot | null): void;
}

const ARROWS: Record<string, readonly [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/**
 * @param root the element that receives pointer events
 * @param table the element that contains the cells
 * @param other a canvas that shows the same images as the cells
 */
export function listen(
  root: HTMLElement,
  table: HTMLElement,
  other: HTMLCanvasElement,
  grid: GridActions,
  life: AbortSignal,
): void {
  const options = { signal: life };
  const point = (to: Spot | null) => {
    if (to || grid.spot()) grid.point(to);
  };
  const cellOf = (event: Event) => {
    const root = (event.target as Element).closest?.("[data-cell]");
    return grid.cells().find((cell) => cell.root === root);
  };
  const move = (event: PointerEvent) => {
    if ((event.target as Element).closest?.(".sw-scened")) return; // it reports its tokens and samples itself
    const canvas = [cellOf(event)?.canvas, other].find((one) => one === event.target);
    point(canvas ? spotIn(canvas, event) : null);
  };
  root.addEventListener("pointermove", move, options);
  root.addEventListener("pointerleave", () => point(null), options);
  table.addEventListener(
    "click",
    (event) => {
      const cell = cellOf(event);
      if (!cell) return;
      if (cell.lock.contains(event.target as Node)) grid.toggle(cell);
      else grid.open(cell);
    },
    options,
  );
  table.addEventListener(
    "focusin",
    (event) => {
      const cell = cellOf(event);
      for (const one of grid.cells()) one.root.tabIndex = one === cell ? 0 : -1;
    },
    options,
  );
  table.addEventListener(
    "keydown",
    (event) => {
      const cell = cellOf(event);
      if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
      const step = ARROWS[event.key];
      if (step && event.shiftKey) {
        point(stepped(grid.spot() ?? { u: 0.5, v: 0.5 }, step, cell));
      } else if (step) {
        const columns = grid.columns();
        const column = (cell.index % columns) + step[0];
        const to = grid.cells().find(({ index }) => index === cell.index + step[0] + columns * step[1]);
        if (to && column >= 0 && column < columns) to.root.focus();
      } else if (event.key === "Enter" || event.key === " ") {
        if (event.target !== cell.root) return; // the padlock is a button
        grid.open(cell);
      } else if (event.key.toLowerCase() === "l") {
        grid.toggle(cell);
      } else if (event.key === "Escape" && grid.spot()) {
        point(null);
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
    },
    options,
  );
}

/** The center of the pixel one step further. */
function stepped({ u, v }: Spot, [x, y]: readonly [number, number], cell: GridCell): Spot {
  const { width, height } = cell.size;
  const moved = (at: number, by: number, n: number) => Math.min(n - 1, Math.max(0, Math.floor(at * n) + by));
  return cell.spotAt(moved(u, x, width), moved(v, y, height));
}
