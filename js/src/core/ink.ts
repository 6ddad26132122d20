// The color of letters on a colored ground.

/** The relative luminance of an sRGB color, as WCAG 2 defines it, from 0 to 1. */
export function luminance(red: number, green: number, blue: number): number {
  const linear = (byte: number) => {
    const share = byte / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
}

/** Black or white, whichever has the higher contrast with the ground: at least 4.58 to 1 for any color. */
export function inkOn(red: number, green: number, blue: number): "#000" | "#fff" {
  const ground = luminance(red, green, blue);
  return (ground + 0.05) ** 2 > 0.05 * 1.05 ? "#000" : "#fff";
}
