// A frame sent by the kernel: 16-bit codes with their range, tagged with (generation, index).

/** The highest code, as in saliency_widgets.render. In a signed map, ZERO represents exactly zero. */
export const LEVELS = 65534;
export const ZERO = LEVELS / 2;

export interface Raster {
  readonly width: number;
  readonly height: number;
}

/** RGBA, four bytes per pixel. */
export interface Pixels extends Raster {
  readonly data: Uint8ClampedArray<ArrayBuffer>;
}

/** The value of the `frame` trait; `{}` without a frame. */
export interface RawFrame {
  generation?: number;
  index?: number;
  final?: boolean;
  height?: number;
  width?: number;
  low?: number;
  high?: number;
  signed?: boolean;
  codes?: ArrayBufferView | ArrayBuffer;
  ground?: object;
}

export interface Frame {
  readonly generation: number;
  readonly index: number;
  readonly final: boolean;
  readonly height: number;
  readonly width: number;
  readonly low: number;
  readonly high: number;
  readonly signed: boolean;
  readonly codes: Uint16Array;
  /** What this frame is painted over, if it changes with the frame: see the scene of its kind of input. */
  readonly ground?: object;
}

/** Decode the frame; null if it is missing or damaged. */
export function decodeFrame(raw: RawFrame | null | undefined): Frame | null {
  if (!raw?.codes || raw.generation === undefined || raw.index === undefined) return null;
  const height = raw.height ?? 0;
  const width = raw.width ?? 0;
  const codes = decodeCodes(raw.codes);
  if (height < 1 || width < 1 || codes.length !== height * width) return null;
  return {
    generation: raw.generation,
    index: raw.index,
    final: raw.final ?? false,
    height,
    width,
    low: raw.low ?? 0,
    high: raw.high ?? 0,
    signed: raw.signed ?? false,
    codes,
    ...(raw.ground && { ground: raw.ground }),
  };
}

const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** Decode little-endian uint16. The bytes are copied first, since they may start at an odd offset. */
export function decodeCodes(data: ArrayBufferView | ArrayBuffer): Uint16Array {
  const bytes = toBytes(data).slice();
  const codes = new Uint16Array(bytes.buffer, 0, bytes.length >> 1);
  if (!LITTLE_ENDIAN) {
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < codes.length; i++) codes[i] = view.getUint16(2 * i, true);
  }
  return codes;
}

/** A byte trait's bytes, without a copy; empty if it has none. */
export function toBytes(data: ArrayBufferView | ArrayBuffer | null | undefined): Uint8Array {
  if (!data) return new Uint8Array(0);
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  if (!ArrayBuffer.isView(data)) return new Uint8Array(0);
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** The value of a code, in the map's own unit. */
export function codeValue(frame: Pick<Frame, "low" | "high">, code: number): number {
  return frame.low + (code / LEVELS) * (frame.high - frame.low);
}

/** The index of the nearest of the map's `m` pixels to pixel `i` of the image's `n`. */
export function nearest(i: number, n: number, m: number): number {
  return n === m ? i : Math.floor(((2 * i + 1) * m) / (2 * n));
}
