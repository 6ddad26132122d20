// Scrolls to one of an explorer's controls and marks it for a while.

const PATIENCE = 8000;
const MARKED_FOR = 4000;
const MARK = "sw-tried";

/** Mark the control with class `control` in the explorer with class `explorer`, as soon as it is on the page. */
export function bringIntoSight(explorer: string, control: string, life: AbortSignal): void {
  const find = () => {
    const all = document.querySelectorAll<HTMLElement>(`.${CSS.escape(explorer)} .${CSS.escape(control)}`);
    return [...all].find((element) => element.offsetParent !== null);
  };
  const present = find();
  if (present) {
    mark(present, life);
    return;
  }
  const observer = new MutationObserver(() => {
    const late = find();
    if (!late) return;
    end();
    mark(late, life);
  });
  const end = () => {
    observer.disconnect();
    clearTimeout(timer);
    life.removeEventListener("abort", end);
  };
  const timer = setTimeout(end, PATIENCE);
  life.addEventListener("abort", end);
  observer.observe(document.body, {
    childList: true,
    subtree: true,
    attributes: true,
    attributeFilter: ["class"],
  });
}

function mark(element: HTMLElement, life: AbortSignal): void {
  element.scrollIntoView({ block: "center" });
  element.classList.add(MARK);
  const end = () => {
    clearTimeout(timer);
    life.removeEventListener("abort", end);
    element.classList.remove(MARK);
  };
  const timer = setTimeout(end, MARKED_FOR);
  life.addEventListener("abort", end);
}
