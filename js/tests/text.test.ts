import { expect, it } from "vitest";
import {
  formatShare,
  formatTime,
  isWhole,
  KERNEL_GONE,
  progressParts,
  progressText,
  readingText,
  type Status,
  signalText,
  tokenText,
  unanswered,
  withoutKernel,
} from "../src/core/text.ts";

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

const running: Status = {
  state: "running",
  done: 17,
  total: 50,
  unit: "samples",
  elapsed: 1.2,
  remaining: 18.2,
};
const done: Status = { ...running, state: "done", done: 50, remaining: null };

it.each<[Status, string]>([
  [running, "17 of 50 samples · 1.2 s, 18 s left"],
  [{ ...running, remaining: null }, "17 of 50 samples · 1.2 s"],
  [{ ...running, elapsed: null, remaining: null }, "17 of 50 samples"],
  [{ ...running, total: 0 }, "Computing …"],
  [{ state: "running" }, "Computing …"],
  [{ ...running, state: "stopped" }, "Stopped at 17 of 50 samples · 1.2 s"],
  [{ ...running, state: "error" }, "Failed at 17 of 50 samples · 1.2 s"],
  [{ ...done, state: "error" }, "50 of 50 samples · 1.2 s"],
  [{ state: "error" }, "Failed"],
  [done, "50 of 50 samples · 1.2 s"],
  [{ ...done, cached: true }, "50 of 50 samples · from cache"],
  [{ ...done, cached: true, state: "error" }, "50 of 50 samples · from cache"],
  [{ ...done, cached: false }, "50 of 50 samples · 1.2 s"],
  [{ state: "done", elapsed: 0.5 }, "Done · 0.5 s"],
  [{ ...running, remark: "4 rows per pass" }, "17 of 50 samples · 1.2 s, 18 s left · 4 rows per pass"],
  [{ ...done, elapsed: null, remark: "4 rows per pass" }, "50 of 50 samples · 4 rows per pass"],
  [{ state: "running", remark: "4 rows per pass" }, "Computing … · 4 rows per pass"],
  [{ ...done, remark: "" }, "50 of 50 samples · 1.2 s"],
  [{ state: "idle", remark: "4 rows per pass" }, ""],
  [{ state: "idle", done: 3, total: 9 }, ""],
  [{}, ""],
])("describes the progress of %o", (status, text) => {
  expect(progressText(status)).toBe(text);
});

it("separates the progress from the time", () => {
  expect(progressParts(running)).toEqual(["17 of 50 samples", "1.2 s, 18 s left"]);
  expect(progressParts({ ...running, total: 0 })).toEqual(["Computing …"]);
});

it.each<[Status, boolean]>([
  [done, true],
  [{ ...done, state: "error" }, true],
  [running, false],
  [{ state: "error", done: 0, total: 0 }, false],
  [{}, false],
])("detects whether the map of %o is finished", (status, whole) => {
  expect(isWhole(status)).toBe(whole);
});

it("shows a running computation as stopped once the kernel is gone", () => {
  const gone = withoutKernel({ ...running, notes: ["slow"] });
  expect(gone.notes).toEqual([KERNEL_GONE, "slow"]);
  expect(progressText(gone)).toBe("Stopped at 17 of 50 samples · 1.2 s");
  expect(progressText(withoutKernel({ state: "running" }))).toBe("Stopped");
  for (const status of [done, { ...running, state: "stopped" }, { state: "error" }, {}] as Status[]) {
    expect(withoutKernel(status)).toBe(status);
  }
});

it("reports in one line after a move that the kernel is gone and what still works", () => {
  const line = unanswered("image");
  expect(line).toBe(`${KERNEL_GONE}. Opacity, colors and all other display settings still work.`);
  const failed: Status = { ...done, state: "error", message: "No such layer.", remedy: "Change a setting." };
  for (const status of [running, done, failed]) {
    const { message, remedy, notes } = withoutKernel({ ...status, notes: ["slow"] }, line);
    expect([message, remedy, notes]).toEqual([line, "", ["slow"]]);
  }
  expect(withoutKernel(running, line).state).toBe("stopped");
  expect(withoutKernel(done, line).state).toBe("done");
});

it("describes the value and share of a sample", () => {
  const reading = { x: 12, y: 1, value: 0.01234, share: 0.0042 };
  expect(signalText("lead II", "1.204 s", 0.974, reading)).toBe(
    "lead II · 1.204 s · value 0.974 · attribution 0.0123 · 0.42% of the total",
  );
  expect(signalText("lead II", "sample 3", 2, { ...reading, value: null })).toBe(
    "lead II · sample 3 · value 2",
  );
});

it("describes the value and share of a pixel", () => {
  const reading = { x: 12, y: 40, value: 0.01234, share: 0.0042 };
  expect(readingText(reading)).toBe("x 12, y 40 · attribution 0.0123 · 0.42% of the total");
  expect(readingText({ ...reading, value: null })).toBe("x 12, y 40");
});

it("reads a token with its id, value and share", () => {
  const reading = { x: 3, y: 0, value: -0.01234, share: 0.25 };
  expect(tokenText("cat", 4937, reading)).toBe("cat · id 4937 · attribution -0.0123 · 25% of the total");
  expect(tokenText("cat", undefined, { ...reading, value: null })).toBe("cat");
  expect(tokenText("\n", 13, { ...reading, value: null })).toBe('"\\n" · id 13');
});
