// The display settings, stated once for the page: from the traits of render.DISPLAY to what colors a map.

import { toBytes } from "./frame.ts";

/** A trait's value by its name. */
export type Traits = (name: string) => unknown;

const TABLE = 768;
const tables = new WeakMap<object, Map<number, Uint8Array>>();

/** The same table while the same colors are meant: what is painted is remembered by it. */
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

/** @param otherwise is used where there is no such trait: the map is then shown as it is */
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

/** The first is used where there is no such trait. */
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

/** The settings in use; null where the color tables are missing. */
export function readDisplay(traits: Traits): Display | null {
  const settings = NAMES.map((name) => [name, SETTINGS[name](traits, name)] as const);
  return settings.some(([, value]) => value === null) ? null : (Object.fromEntries(settings) as Display);
}

/** What colors one map: the settings with the table for its sign. Its limits come from `clip`. */
export type Look = Omit<Display, "colormap" | "diverging" | "clip"> & { readonly lut: Uint8Array };

export function lookOf({ colormap, diverging, clip: _, ...look }: Display, signed: boolean): Look {
  return { ...look, lut: signed ? diverging : colormap };
}
