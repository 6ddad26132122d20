// The state of a saved page: one deflated block that holds JSON, followed by the bytes it refers to.

import { type Packing, unpack } from "../core/packing.ts";
import type { Axis } from "../core/recording.ts";

/** Traits by name. */
export type Traits = Record<string, unknown>;

/** A display parameter, as Python describes it. */
export interface Setting {
  name: string;
  label: string;
  help: string;
  kind: "float" | "choice" | "range";
  low: number | null;
  high: number | null;
  unit: string;
  options: string[];
}

export interface Archive {
  /** The index of the root view's model. */
  root: number;
  models: Traits[];
  /** Canvases, with the index of their model, their size and their PNG bytes. */
  images: { model: number; width: number; height: number; png: DataView }[];
  settings: Setting[];
  /** The indices of the models whose traits the settings change. */
  displays: number[];
  axes: Axis[];
  /** For each key of the recording, the traits by the index of their model. */
  states: Record<string, Record<string, Traits>>;
  predictions: { index: number; name: string; share: number }[];
  /** The class at each index of the axis "target"; without that axis, the explained class. */
  targets: (number | null)[];
}

/** Read the block.
 * @throws if the browser can't inflate it, or the block is damaged
 */
export async function readArchive(text: string): Promise<Archive> {
  const inflated = await inflate(fromBase64(text.trim()));
  const size = new DataView(inflated).getUint32(0, true);
  const json = JSON.parse(new TextDecoder().decode(new Uint8Array(inflated, 4, size)));
  return filled(json, new Bytes(inflated, 4 + size, json.bytes)) as Archive;
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

type Stored = [length: number, packing: Packing, width: number];

/** The blocks of bytes, each unpacked once on first use. */
class Bytes {
  readonly #starts: number[] = [];
  readonly #views = new Map<number, DataView>();

  constructor(
    private readonly all: ArrayBuffer,
    start: number,
    private readonly stored: readonly Stored[],
  ) {
    for (const [length] of stored) {
      this.#starts.push(start);
      start += length;
    }
  }

  get(index: number): DataView {
    let view = this.#views.get(index);
    if (!view) {
      const [length, packing, width] = this.stored[index];
      const bytes = unpack(packing, new Uint8Array(this.all, this.#starts[index], length), width);
      view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      this.#views.set(index, view);
    }
    return view;
  }
}

/** A copy of the value with `{"$bytes": n}` replaced by the n-th block. */
function filled(value: unknown, bytes: Bytes): unknown {
  if (Array.isArray(value)) return value.map((item) => filled(item, bytes));
  if (typeof value !== "object" || value === null) return value;
  const pairs = Object.entries(value);
  if (pairs.length === 1 && pairs[0][0] === "$bytes") return bytes.get(Number(pairs[0][1]));
  return Object.fromEntries(pairs.map(([name, item]) => [name, filled(item, bytes)]));
}
