// The display settings on the page: reads the traits of render.DISPLAY and prepares them for coloring maps.

import { toBytes } from "./frame.ts";

/** Returns a trait's value by name. */
export type Traits = (name: string) => unknown;

const TABLE = 768;
const tables = new WeakMap<object, Map<number, Uint8Array>>();

/** The table of the selected colors; the same object for the same colors, since painted results are cached by it. */
function colors(traits: Traits, name: string): Uint8Array | null {
  const all = traits(`${name}_luts`);
  const index = Number(traits(name)) || 0;
  if (typeof all !== "object" || all === null) return null;
  const cut = tables.get(all) ?? new Map<number, Uint8Array>();
  tables.set(all, cut);
  const table = cut.get(index) ?? toBytes(all as DataView).slice(TABLE * index, TABLE * (index + 1));
  cut.set(index, table);
  return table.length === TABLE ? table : null;
}

function limited(value: unknown, low: number, high: number, otherwise: number): number {
  const number = typeof value === "number" && Number.isFinite(value) ? value : otherwise;
  return Math.min(high, Math.max(low, number));
}

/** @param otherwise used if the trait is missing, so that the map is shown unmodified */
function number(low: number, high: number, otherwise: number) {
  return (traits: Traits, name: string): number => limited(traits(name), low, high, otherwise);
}

function range(low: number, high: number) {
  return (traits: Traits, name: string): readonly [number, number] => {
    const value = traits(name);
    const [from, to] = Array.isArray(value) ? value : [low, high];
    return [limited(from, low, high, low), limited(to, low, high, high)];
  };
}

/** The first option is used if the trait is missing. */
function choice<T extends string>(...options: T[]) {
  return (traits: Traits, name: string): T => options[Number(traits(name))] ?? options[0];
}

const SETTINGS = {
  colormap: colors,
  diverging: colors,
  opacity: number(0, 1, 1),
  clip: range(0, 100),
  threshold: number(0, 1, 0),
  blend: choice("by value", "uniform"),
};

type Settings = typeof SETTINGS;
export type Display = { readonly [K in keyof Settings]: NonNullable<ReturnType<Settings[K]>> };

export const NAMES = Object.keys(SETTINGS) as (keyof Settings)[];

/** The current settings; null if the color tables are missing. */
export function readDisplay(traits: Traits): Display | null {
  const settings = NAMES.map((name) => [name, SETTINGS[name](traits, name)] as const);
  return settings.some(([, value]) => value === null) ? null : (Object.fromEntries(settings) as Display);
}

/** The settings that color one map, with the table for its sign. The map's limits come from `clip`. */
export type Look = Omit<Display, "colormap" | "diverging" | "clip"> & { readonly lut: Uint8Array };

export function lookOf({ colormap, diverging, clip: _, ...look }: Display, signed: boolean): Look {
  return { ...look, lut: signed ? diverging : colormap };
}
