// The findings of the check-up as text: one line for all of them, and each in words.

export type Severity = "wrong" | "caution" | "slow";

/** As messages.findings_of writes it. */
export interface Finding {
  what: string;
  where?: string[];
  /** Titles; empty where all methods are concerned. */
  methods?: string[];
  remedy?: string;
  severity?: Severity;
}

export interface Item {
  severity: Severity;
  label: string;
  what: string;
  /** "in features.3 and features.7 · concerns Deconvnet" */
  about: string;
  /** All places, where `about` leaves some out. */
  places: string;
  remedy: string;
}

export interface CheckUp {
  line: string;
  /** The gravest of the relevant findings; "fine" where there is none. */
  mark: Severity | "fine";
  /** Findings about the method that is shown. */
  relevant: Item[];
  /** Findings that concern other methods only. */
  others: Item[];
}

/** Above the findings in `others`. */
export const ABOUT_OTHERS = "About other methods";

const LABELS: Record<Severity, string> = {
  wrong: "Makes maps wrong",
  caution: "May mislead",
  slow: "Slow",
};
const GRAVEST_FIRST = Object.keys(LABELS) as Severity[];

/**
 * What there is to show of the findings.
 *
 * @param method Title of the method whose map is shown; "" where there is none: then all findings are relevant.
 */
export function checkUp(findings: readonly Finding[], method: string): CheckUp {
  const concerns = ({ methods = [] }: Finding) => !method || !methods.length || methods.includes(method);
  const relevant = findings.filter(concerns);
  const others = findings.filter((finding) => !concerns(finding));
  return {
    line: `Check-up: ${summary(relevant, others.length, method)}`,
    mark: gravest(relevant) ?? "fine",
    relevant: relevant.map(item),
    others: others.map(item),
  };
}

function summary(relevant: Finding[], others: number, method: string): string {
  if (relevant.length + others === 0) return "nothing found that would make a map of this model wrong";
  if (relevant.length === 0) return `nothing about this method, ${counted(others)} about others`;
  const worst = effect(relevant, method ? "this map" : "maps");
  if (others === 0) return `${counted(relevant.length)} (${worst})`;
  return `${counted(relevant.length)} about this method (${worst}), ${others} about others`;
}

/** What the gravest of them do: "1 makes maps wrong"; the number is left out where there is only one finding. */
function effect(findings: Finding[], what: string): string {
  const severity = gravest(findings);
  const n = findings.filter((finding) => severityOf(finding) === severity).length;
  const make = n === 1 ? "makes" : "make";
  const does = severity === "caution" ? "may mislead" : `${make} ${what} ${severity}`;
  return findings.length === 1 ? does : `${n} ${does}`;
}

function gravest(findings: Finding[]): Severity | undefined {
  return GRAVEST_FIRST.find((severity) => findings.some((finding) => severityOf(finding) === severity));
}

function item(finding: Finding): Item {
  const { what, where = [], methods = [], remedy = "" } = finding;
  const severity = severityOf(finding);
  return {
    severity,
    label: LABELS[severity],
    what,
    about: [whereText(where), concernsText(methods)].filter(Boolean).join(" · "),
    places: where.length > SHOWN_PLACES ? where.join(", ") : "",
    remedy: remedy && `What to do: ${remedy}`,
  };
}

const SHOWN_PLACES = 3;

/** "in features.3, features.7 and 4 more"; "" where it is about the whole model or the input. */
export function whereText(where: readonly string[]): string {
  if (where.length === 0) return "";
  const named = where.length > SHOWN_PLACES ? where.slice(0, SHOWN_PLACES - 1) : where.slice(0, -1);
  const last = where.length > SHOWN_PLACES ? `${where.length - named.length} more` : where.at(-1);
  return named.length === 0 ? `in ${last}` : `in ${named.join(", ")} and ${last}`;
}

export function concernsText(methods: readonly string[]): string {
  return `concerns ${methods.length === 0 ? "all methods" : methods.join(", ")}`;
}

/** A finding of an unknown severity is shown all the same. */
function severityOf({ severity = "wrong" }: Finding): Severity {
  return severity in LABELS ? severity : "caution";
}

function counted(n: number): string {
  return n === 1 ? "1 finding" : `${n} findings`;
}
