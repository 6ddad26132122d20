// The elements of a lesson. All exist from the start, so that nothing jumps when steps change.

import { make } from "../shell/elements.ts";

function button(name: string, words: string): HTMLButtonElement {
  return make("button", `lesson-button sw-lesson-${name}`, { type: "button" }, [words]);
}

export function makeLessonElements(strip: HTMLElement, chooser: HTMLElement) {
  const title = make("div", "lesson-about");
  const progress = make("div", "lesson-progress");
  const stop = button("stop", "Stop");
  const full = button("full", "Full screen");
  const heading = make("h2", "lesson-heading");
  const head = make("div", "lesson-head", {}, [heading, title, progress, stop, full]);
  const texts = make("div", "lesson-texts");
  const message = make("div", "lesson-message");
  const remedy = make("div", "lesson-remedy");
  const empty = make("div", "lesson-empty", {}, [message, remedy]);
  const stage = make("div", "lesson-stage", {}, [empty]);
  const facts = make("div", "lesson-facts");
  const notes = make("div", "lesson-notes");
  const readout = make("div", "lesson-readout", { "aria-live": "polite" });
  const control = make("span", "lesson-where");
  const tryIt = button("try", "Try it");
  const back = button("back", "‹ Back");
  const next = button("next", "Next ›");
  const counter = make("div", "lesson-counter");
  const link = make("div", "lesson-link", {}, [control, tryIt]);
  const foot = make("div", "lesson-foot", {}, [back, counter, next, link]);
  const problemText = make("span", "lesson-problem-text");
  const problem = make("div", "lesson-problem", { role: "alert", hidden: "" }, [problemText]);
  const announcement = make("div", "unseen", { "aria-live": "polite" });
  const words = make("div", "lesson-words", {}, [facts, notes, readout]);
  const parts = [strip, head, texts, stage, chooser, words, foot, problem, announcement];
  const body = make("div", "lesson-body", {}, parts);
  const root = make(
    "div",
    "lesson",
    { role: "group", "aria-label": "Lesson", tabindex: "0", "data-lm-suppress-shortcuts": "true" },
    [body],
  );
  return {
    root,
    title,
    heading,
    texts,
    stage,
    empty,
    message,
    remedy,
    facts,
    notes,
    readout,
    control,
    tryIt,
    back,
    next,
    counter,
    full,
    stop,
    progress,
    problem,
    problemText,
    announcement,
  };
}

export type LessonElements = ReturnType<typeof makeLessonElements>;
