import { expect, it } from "vitest";
import { checkUp, concernsText, type Finding, whereText } from "../src/core/findings.ts";

const WRONG: Finding = { what: "a", methods: ["Deconvnet", "Guided Backprop"], severity: "wrong" };
const CAUTION: Finding = { what: "b", methods: [], severity: "caution" };
const SLOW: Finding = { what: "c", methods: ["SmoothGrad"], severity: "slow" };
const ALWAYS: Finding = { what: "d", severity: "wrong" };

it.each<[Finding[], string, string, string]>([
  [[], "", "no problems found", "fine"],
  [[], "Deconvnet", "no problems found", "fine"],
  [[WRONG], "", "1 finding (makes maps wrong)", "wrong"],
  [[WRONG, CAUTION], "", "2 findings (1 makes maps wrong)", "wrong"],
  [[WRONG, ALWAYS], "", "2 findings (2 make maps wrong)", "wrong"],
  [[CAUTION], "", "1 finding (may mislead)", "caution"],
  [[CAUTION, CAUTION, SLOW], "", "3 findings (2 may mislead)", "caution"],
  [[SLOW], "", "1 finding (makes maps slow)", "slow"],
  [[WRONG], "Deconvnet", "1 finding (makes this map wrong)", "wrong"],
  [[WRONG, ALWAYS, CAUTION], "Deconvnet", "3 findings (2 make this map wrong)", "wrong"],
  [[WRONG, CAUTION], "Gradient", "1 finding about this method (may mislead), 1 about others", "caution"],
  [
    [WRONG, ALWAYS, SLOW],
    "Deconvnet",
    "2 findings about this method (2 make this map wrong), 1 about others",
    "wrong",
  ],
  [[SLOW, WRONG], "SmoothGrad", "1 finding about this method (makes this map slow), 1 about others", "slow"],
  [[WRONG], "Gradient", "no findings about this method, 1 finding about others", "fine"],
  [[WRONG, SLOW], "Gradient", "no findings about this method, 2 findings about others", "fine"],
])("sums up %o for %j", (findings, method, line, mark) => {
  expect(checkUp(findings, method)).toMatchObject({ line: `Check-up: ${line}`, mark });
});

it("lists findings about the shown method first, and keeps the order otherwise", () => {
  const findings = [WRONG, CAUTION, SLOW, ALWAYS];
  const split = (method: string) => {
    const { relevant, others } = checkUp(findings, method);
    return [relevant.map((item) => item.what).join(""), others.map((item) => item.what).join("")];
  };
  expect(split("")).toEqual(["abcd", ""]);
  expect(split("SmoothGrad")).toEqual(["bcd", "a"]);
  expect(split("Gradient")).toEqual(["bd", "ac"]);
});

it("describes the severity, layers, methods and remedy of a finding", () => {
  const where = ["f.0", "f.1", "f.2", "f.3"];
  const [all] = checkUp([{ ...WRONG, where, remedy: "Call model.eval()." }], "").relevant;
  expect(all).toEqual({
    severity: "wrong",
    label: "Makes maps wrong",
    what: "a",
    about: "in f.0, f.1 and 2 more · concerns Deconvnet, Guided Backprop",
    places: "f.0, f.1, f.2, f.3",
    remedy: "What to do: Call model.eval().",
  });
  const [bare] = checkUp([{ what: "d" }], "").relevant;
  expect(bare).toMatchObject({ severity: "wrong", about: "concerns all methods", places: "", remedy: "" });
});

it("shows a finding of an unknown severity as a caution", () => {
  const odd = { what: "e", severity: "odd" } as unknown as Finding;
  expect(checkUp([odd], "")).toMatchObject({ mark: "caution", line: "Check-up: 1 finding (may mislead)" });
});

it.each([
  [[], ""],
  [["a"], "in a"],
  [["a", "b"], "in a and b"],
  [["a", "b", "c"], "in a, b and c"],
  [["a", "b", "c", "d", "e", "f"], "in a, b and 4 more"],
])("names the layers %j as %j", (where, text) => {
  expect(whereText(where)).toBe(text);
});

it("names the methods that a finding concerns", () => {
  expect(concernsText([])).toBe("concerns all methods");
  expect(concernsText(["Guided Backprop", "Deconvnet"])).toBe("concerns Guided Backprop, Deconvnet");
});
