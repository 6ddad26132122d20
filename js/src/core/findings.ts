// Formats the findings of the check-up as text: a summary line, and a description of each finding.

export type Severity = "wrong" | "caution" | "slow";

/** A finding in the format of messages.findings_of. */
export interface Finding {
  what: string;
  where?: string[];
  /** The titles of the affected methods; empty if all are affected. */
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
  /** All places, if `about` omits some; otherwise empty. */
  places: string;
  remedy: string;
}

export interface CheckUp {
  line: string;
  /** The highest severity of the relevant findings; "fine" if there are none. */
  mark: Severity | "fine";
  /** Findings about the displayed method. */
  relevant: Item[];
  /** Findings that concern only other methods. */
  others: Item[];
}

/** The heading above the findings in `others`. */
export const ABOUT_OTHERS = "About other methods";

const LABELS: Record<Severity, string> = {
  wrong: "Makes maps wrong",
  caution: "May mislead",
  slow: "Slow",
};
const GRAVEST_FIRST = Object.keys(LABELS) as Severity[];

/**
 * The summary, severity and items to show for the findings.
 *
 * @param method the title of the displayed map's method; with "", all findings are relevant
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
  if (relevant.length + others === 0) return "no problems found";
  if (relevant.length === 0) return `no findings about this method, ${counted(others)} about others`;
  const worst = effect(relevant, method ? "this map" : "maps");
  if (others === 0) return `${counted(relevant.length)} (${worst})`;
  return `${counted(relevant.length)} about this method (${worst}), ${others} about others`;
}

/** The effect of the most severe findings: "1 makes maps wrong", without the number for a single finding. */
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

/** "in features.3, features.7 and 4 more"; "" if it concerns the whole model or the input. */
export function whereText(where: readonly string[]): string {
  if (where.length === 0) return "";
  const named = where.length > SHOWN_PLACES ? where.slice(0, SHOWN_PLACES - 1) : where.slice(0, -1);
  const last = where.length > SHOWN_PLACES ? `${where.length - named.length} more` : where.at(-1);
  return named.length === 0 ? `in ${last}` : `in ${named.join(", ")} and ${last}`;
}

export function concernsText(methods: readonly string[]): string {
  return `concerns ${methods.length === 0 ? "all methods" : methods.join(", ")}`;
}

/** The severity of a finding; an unknown severity counts as a caution. */
function severityOf({ severity = "wrong" }: Finding): Severity {
  return severity in LABELS ? severity : "caution";
}

function counted(n: number): string {
  return n === 1 ? "1 finding" : `${n} findings`;
}
