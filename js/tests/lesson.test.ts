import { describe, expect, it } from "vitest";
import { Composer } from "../src/core/compose.ts";
import { readDisplay } from "../src/core/display.ts";
import { decodeFrame, LEVELS, type RawFrame } from "../src/core/frame.ts";
import { numberText } from "../src/core/text.ts";
import { roundTicks, shortened, valueAt } from "../src/lesson/chart.ts";
import { isReady, isSameChoice, Maps, moved, moveOf, progressOf } from "../src/lesson/content.ts";

function raw(codes: number[], high = 1): RawFrame {
  return {
    generation: 0,
    index: 0,
    final: true,
    height: 1,
    width: codes.length,
    low: 0,
    high,
    signed: false,
    codes: Uint16Array.from(codes),
  };
}

describe("the keys of a lesson", () => {
  it("change steps unless a control has the focus", () => {
    for (const key of ["ArrowRight", "PageDown", " "]) expect(moveOf(key, "none")).toBe("next");
    for (const key of ["ArrowLeft", "PageUp"]) expect(moveOf(key, "none")).toBe("back");
    expect(moveOf("Home", "none")).toBe("first");
    expect(moveOf("End", "none")).toBe("last");
    for (const key of ["a", "Enter", "Tab", "ArrowUp", "Escape"]) expect(moveOf(key, "none")).toBeNull();
  });

  it("leave arrows to sliders and space to buttons, while a presenter's remote always changes steps", () => {
    for (const key of ["ArrowRight", "ArrowLeft", "Home", "End", " "])
      expect(moveOf(key, "slider")).toBeNull();
    expect(moveOf(" ", "button")).toBeNull();
    expect(moveOf("ArrowRight", "button")).toBe("next");
    for (const focus of ["slider", "button", "none"] as const) {
      expect(moveOf("PageDown", focus)).toBe("next");
      expect(moveOf("PageUp", focus)).toBe("back");
    }
  });

  it("stop at the first and the last step", () => {
    expect(moved(0, "back", 5)).toBe(0);
    expect(moved(4, "next", 5)).toBe(4);
    expect(moved(2, "next", 5)).toBe(3);
    expect(moved(2, "back", 5)).toBe(1);
    expect(moved(2, "first", 5)).toBe(0);
    expect(moved(2, "last", 5)).toBe(4);
  });
});

describe("the content of a step", () => {
  it("is ready once it has a shot", () => {
    const shots = [{ label: "", text: "", panels: [] }];
    expect(isReady({ state: "ready", shots })).toBe(true);
    expect(isReady({ state: "ready", shots: [] })).toBe(false);
    expect(isReady({ state: "refused", shots })).toBe(false);
    expect(isReady({})).toBe(false);
  });

  it("offers the same choice as another one with the same label and the same choices", () => {
    const content = (label: string, ...labels: string[]) => ({
      label,
      shots: labels.map((name) => ({ label: name, text: "", panels: [] })),
    });
    const tokens = content("Token", "cat", "sat");
    expect(isSameChoice(tokens, content("Token", "cat", "sat"))).toBe(true);
    expect(isSameChoice(tokens, content("Token", "cat", "mat"))).toBe(false);
    expect(isSameChoice(tokens, content("Token", "cat"))).toBe(false);
    expect(isSameChoice(tokens, content("Sign", "cat", "sat"))).toBe(false);
    expect(isSameChoice(content("", ""), content("", ""))).toBe(false);
    expect(isSameChoice(tokens, {})).toBe(false);
  });

  it("reads a number of a vector by the names of its row and its column", () => {
    expect(numberText("cat", "number 12", { x: 0, y: 0, value: -0.01234, share: 0 })).toBe(
      "cat · number 12 · -0.0123",
    );
    expect(numberText("cat", "number 12", { x: 0, y: 0, value: null, share: 0 })).toBe("cat · number 12");
  });

  it("is counted, including refused steps, until all are ready", () => {
    expect(progressOf([{ state: "ready" }, { state: "refused" }, {}])).toBe("2 of 3 steps ready");
    expect(progressOf([{ state: "ready" }])).toBe("");
  });

  it("has its maps found among those of all steps and decoded once", () => {
    const maps = new Maps();
    const first = raw([1, 2]);
    maps.add({ a: first });
    maps.add(undefined);
    const frame = maps.get("a");
    expect([...(frame?.codes ?? [])]).toEqual([1, 2]);
    maps.add({ a: first, b: raw([3]) });
    expect(maps.get("a")).toBe(frame);
    expect([...(maps.get("b")?.codes ?? [])]).toEqual([3]);
    maps.add({ a: raw([4]) });
    expect([...(maps.get("a")?.codes ?? [])]).toEqual([4]);
    expect(maps.get("c")).toBeNull();
    expect(maps.get(undefined)).toBeNull();
  });
});

describe("maps that share a scale", () => {
  const lut = Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));
  const traits: Record<string, unknown> = { colormap_luts: lut, diverging_luts: lut, blend: 1 };
  const display = readDisplay((name) => traits[name])!;

  it("have the same color for the same value, unlike maps with separate scales", () => {
    const weak = decodeFrame(raw([0, LEVELS / 2]))!;
    const strong = decodeFrame(raw([0, LEVELS]))!;
    const red = (composer: Composer, scale = weak) =>
      composer.blend(weak, null, display, composer.limits(scale, display)).data[4];
    expect(red(new Composer())).toBe(255);
    expect(red(new Composer(), strong)).toBe(128);
    const composer = new Composer();
    const drawn = composer.bar(weak, display, 2, composer.limits(strong, display));
    expect(drawn.ticks.map((tick) => tick.value)).toEqual([0, 1]);
  });
});

describe("a curve", () => {
  it("goes through its points, with straight lines between them", () => {
    const curve = { x: [0, 0.5, 1], y: [2, 4, 0] };
    expect([0, 0.25, 0.5, 0.75, 1].map((at) => valueAt(curve, at))).toEqual([2, 3, 4, 2, 0]);
    expect(valueAt(curve, 7)).toBe(0);
  });

  it("has a few round ticks within its limits", () => {
    for (const [low, high] of [
      [0, 9.1],
      [-0.3, 0.4],
      [0, 1],
      [-1200, 3.4e5],
      [0, 2e-7],
    ]) {
      const ticks = roundTicks(low, high);
      expect(ticks.length).toBeGreaterThan(1);
      expect(ticks.length).toBeLessThan(8);
      const slack = 1e-9 * (high - low);
      for (const tick of ticks) {
        expect(tick).toBeGreaterThanOrEqual(low - slack);
        expect(tick).toBeLessThanOrEqual(high + slack);
        expect(Number(tick.toPrecision(3))).toBeCloseTo(tick, 12);
      }
      const steps = ticks.slice(1).map((tick, i) => tick - ticks[i]);
      for (const step of steps) expect(step / steps[0]).toBeCloseTo(1, 6);
    }
    expect(roundTicks(3, 3)).toEqual([3]);
  });

  it("shortens only long names", () => {
    expect(shortened("Egyptian cat")).toBe("Egyptian cat");
    expect(shortened("x".repeat(40))).toHaveLength(26);
  });
});
