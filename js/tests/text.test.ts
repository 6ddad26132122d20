import { expect, it } from "vitest";
import { formatShare, formatTime, progressText, readingText } from "../src/core/text.ts";

it.each([
  [0, "0 ms"],
  [0.0123, "12 ms"],
  [0.0994, "99 ms"],
  [0.0999, "0.1 s"],
  [1.24, "1.2 s"],
  [9.94, "9.9 s"],
  [9.96, "10 s"],
  [59.4, "59 s"],
  [59.6, "1 min 00 s"],
  [125, "2 min 05 s"],
  [3599.7, "1 h 00 min"],
  [7500, "2 h 05 min"],
])("writes %f seconds as %s", (seconds, text) => {
  expect(formatTime(seconds)).toBe(text);
});

it.each([
  [0, "0%"],
  [1, "100%"],
  [0.123456, "12.3%"],
  [0.0123456, "1.2%"],
  [0.000123, "0.012%"],
  [0.000002, "< 0.001%"],
  [Number.NaN, "0%"],
])("writes a share of %f as %s", (share, text) => {
  expect(formatShare(share)).toBe(text);
});

it("tells how far it is", () => {
  const running = {
    state: "running",
    done: 17,
    total: 50,
    unit: "samples",
    elapsed: 1.2,
    remaining: 2.4,
  } as const;
  expect(progressText(running)).toBe("17 of 50 samples · 1.2 s · about 2.4 s left");
  expect(progressText({ ...running, remaining: null })).toBe("17 of 50 samples · 1.2 s");
  expect(progressText({ ...running, state: "stopped" })).toBe("Stopped at 17 of 50 samples · 1.2 s");
  expect(progressText({ ...running, state: "error" })).toBe("Failed at 17 of 50 samples · 1.2 s");
  expect(progressText({ ...running, state: "done", done: 50 })).toBe("50 of 50 samples · 1.2 s");
  expect(progressText({ state: "running", total: 0, elapsed: null })).toBe("Computing");
  expect(progressText({ state: "error" })).toBe("Failed");
  expect(progressText({ state: "idle", done: 3, total: 9 })).toBe("");
  expect(progressText({})).toBe("");
});

it("reads a pixel aloud", () => {
  const reading = { x: 12, y: 40, value: 0.01234, share: 0.0042 };
  expect(readingText(reading)).toBe("x 12, y 40 · attribution 0.0123 · 0.42% of the total");
  expect(readingText({ ...reading, value: null })).toBe("x 12, y 40");
});
