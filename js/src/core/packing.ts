// Unpacks codes packed by saliency_widgets.render.packing: high bytes first, then low bytes; differences if smooth.

export type Packing = "raw" | "planes" | "steps";

/** The exact codes as little-endian uint16; "raw" bytes are returned unchanged. */
export function unpack(packing: Packing, packed: Uint8Array, width: number): Uint8Array {
  if (packing === "raw") return packed;
  const count = packed.length >> 1;
  const bytes = new Uint8Array(2 * count);
  let last = 0;
  for (let i = 0; i < count; i++) {
    let code = (packed[i] << 8) | packed[count + i];
    if (packing === "steps") {
      if (i % width === 0) last = 0;
      code = last = (last + code) & 0xffff;
    }
    bytes[2 * i] = code & 255;
    bytes[2 * i + 1] = code >> 8;
  }
  return bytes;
}
