// Codes as saliency_widgets.render.packing packs them: high bytes first, then low ones; of smooth maps, steps.

export type Packing = "raw" | "planes" | "steps";

/** The little-endian uint16 codes, exactly; "raw" bytes as they are. */
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
