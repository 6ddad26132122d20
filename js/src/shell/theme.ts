// The colors of the page, which change with its theme.

/** Call back when JupyterLab changes its theme, or the system its scheme, which a saved page follows. */
export function followTheme(changed: () => void, life: AbortSignal): void {
  const observer = new MutationObserver(changed);
  observer.observe(document.body, { attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });
  life.addEventListener("abort", () => observer.disconnect());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed, { signal: life });
}

export type Rgb = readonly [red: number, green: number, blue: number];

/** The computed ground of an element, without transparency. */
export function groundOf(element: Element): Rgb {
  const [red, green, blue] = parse(getComputedStyle(element).backgroundColor);
  return [red, green, blue];
}

/** The computed color of an element's text over a ground; `share` of 1 is the color, and 0 the ground. */
export function inkOf(element: Element, ground: Rgb, share = 1): Rgb {
  const [red, green, blue, alpha] = parse(getComputedStyle(element).color);
  const mix = (part: number, under: number) => Math.round(under + alpha * share * (part - under));
  return [mix(red, ground[0]), mix(green, ground[1]), mix(blue, ground[2])];
}

function parse(color: string): readonly [red: number, green: number, blue: number, alpha: number] {
  const [red = 128, green = 128, blue = 128, alpha = 1] = (color.match(/[\d.]+/g) ?? []).map(Number);
  return [red, green, blue, alpha];
}
