// Formats numbers, times and progress for display.

export interface Status {
  generation?: number;
  state?: "idle" | "running" | "done" | "stopped" | "error";
  title?: string;
  /** The title of the displayed map's method; "" without a map. */
  method?: string;
  /** Python code that reproduces the displayed map; "" until it is finished. */
  code?: string;
  /** Text next to the progress, such as "4 rows per pass". */
  remark?: string;
  done?: number;
  total?: number;
  unit?: string;
  elapsed?: number | null;
  remaining?: number | null;
  readings?: { label: string; value: string; help?: string }[];
  notes?: string[];
  message?: string;
  remedy?: string;
  /** Whether the map came from the cache, so that there is no time to show. */
  cached?: boolean;
  /** Whether the displayed map differs from the map that the controls request. */
  dim?: boolean;
}

/** Format three significant digits, with an exponent below 0.001 and from 10000 on, as render.format_number does. */
export function formatNumber(value: number): string {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return String(value);
  const rounded = value.toExponential(2);
  const [digits, power] = rounded.split("e");
  const exponent = Number(power);
  return exponent >= -3 && exponent < 4 ? String(Number(rounded)) : `${Number(digits)}e${exponent}`;
}

/** Format a share from 0 to 1 as a percentage with two significant digits, three from 10% on. */
export function formatShare(share: number): string {
  if (!(share > 0)) return "0%";
  if (share < 0.00001) return "< 0.001%";
  return `${Number((100 * share).toPrecision(share >= 0.1 ? 3 : 2))}%`;
}

export function formatTime(seconds: number): string {
  if (seconds < 0.0995) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** The progress and the times: ["17 of 50 samples", "1.2 s, 2.4 s left · a remark"]; either may be missing. */
export function progressParts(status: Status): string[] {
  const {
    state = "idle",
    done = 0,
    total = 0,
    unit = "",
    elapsed,
    remaining,
    cached = false,
    remark = "",
  } = status;
  if (state === "idle") return [];
  const running = state === "running";
  if (running && !(total > 0)) return ["Computing …", remark].filter(Boolean);
  const times: string[] = [];
  if (cached) times.push("from cache");
  else if (isNumber(elapsed)) times.push(formatTime(elapsed));
  if (running && isNumber(remaining)) times.push(`${formatTime(remaining)} left`);
  return [
    howFar(status, total > 0 ? `${done} of ${total}${unit && ` ${unit}`}` : ""),
    [times.join(", "), remark].filter(Boolean).join(SEPARATOR),
  ].filter(Boolean);
}

function howFar(status: Status, counted: string): string {
  if (status.state === "error" && !isWhole(status)) return counted ? `Failed at ${counted}` : "Failed";
  if (status.state === "stopped") return counted ? `Stopped at ${counted}` : "Stopped";
  return counted || "Done";
}

/** "17 of 50 samples · 1.2 s, 2.4 s left" */
export function progressText(status: Status): string {
  return progressParts(status).join(SEPARATOR);
}

export const SEPARATOR = " · ";

/** Whether the map of this status is finished, even if there is also an error. */
export function isWhole({ done = 0, total = 0 }: Status): boolean {
  return total > 0 && done >= total;
}

export const KERNEL_GONE = "The kernel is gone: run the cell again";

/** Sentences about what still works without a kernel, for the message that it is gone. */
export const STILL_WORKS = {
  image: "Opacity, colors and all other display settings still work.",
  grid: "Opacity, colors, scales and all other display settings still work.",
  plain: "The displayed results remain unchanged.",
};

/** The message of one line after a user action that the kernel didn't answer. */
export function unanswered(view: keyof typeof STILL_WORKS): string {
  return `${KERNEL_GONE}. ${STILL_WORKS[view]}`;
}

/** The status once the kernel is gone, with `line` as its message after a user action that needs the kernel. */
export function withoutKernel(status: Status, line = ""): Status {
  const { remaining: _, ...rest } = status;
  const ended: Status = status.state === "running" ? { ...rest, state: "stopped" } : status;
  if (line) return { ...ended, message: line, remedy: "" };
  return ended === status ? status : { ...ended, notes: [KERNEL_GONE, ...(status.notes ?? [])] };
}

export interface Reading {
  x: number;
  y: number;
  /** null without a map. */
  value: number | null;
  share: number;
}

/** "x 12, y 40 · attribution 0.0123 · 0.42% of the total" */
export function readingText(reading: Reading): string {
  const position = `x ${reading.x}, y ${reading.y}`;
  if (reading.value === null) return position;
  return `${position} · attribution ${formatNumber(reading.value)} · ${formatShare(reading.share)} of the total`;
}

/** "cat · number 12 · 0.0123" */
export function numberText(row: string, column: string, { value }: Reading): string {
  return [row, column, ...(value === null ? [] : [formatNumber(value)])].join(SEPARATOR);
}

/** "cat · id 4937 · attribution 0.0123 · 0.42% of the total" */
export function tokenText(piece: string, id: number | undefined, { value, share }: Reading): string {
  const parts = [piece.trim() ? piece : JSON.stringify(piece)];
  if (id !== undefined) parts.push(`id ${id}`);
  if (value !== null) parts.push(`attribution ${formatNumber(value)}`, `${formatShare(share)} of the total`);
  return parts.join(SEPARATOR);
}

/** "lead II · 1.204 s · value 0.97 · attribution 0.0123 · 0.42% of the total" */
export function signalText(channel: string, time: string, signal: number, { value, share }: Reading): string {
  const parts = [channel, time, `value ${formatNumber(signal)}`];
  if (value !== null) parts.push(`attribution ${formatNumber(value)}`, `${formatShare(share)} of the total`);
  return parts.join(SEPARATOR);
}

/** "depth 12 · height 40 · width 33 · attribution 0.0123 · above 99.3% of the voxels" */
export function voxelText(names: readonly string[], value: number | null, below: number): string {
  const parts = [names.join(", ")];
  if (value !== null)
    parts.push(`attribution ${formatNumber(value)}`, `above ${formatShare(below)} of the voxels`);
  return parts.join(SEPARATOR);
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}
