// Adds keyboard and screen reader support that ipywidgets' controls lack: a fold opens only by click, and a slider's
// handle has no name and announces its position, such as "6" for 64 steps. Applies only to this package's controls.

const FOLD = ".sw-fold .jupyter-widget-Collapse-header";
const HANDLE = ".sw-control .noUi-handle";
const READOUT = ".sw-control .widget-readout[contenteditable]";
const OPEN = "jupyter-widget-Collapse-open";
const DONE = new WeakSet<Element>();
let folds = 0;

/** Fix the existing and future controls in the same output as `el`, until `life` is aborted. */
export function mendControls(el: HTMLElement, life: AbortSignal): void {
  // The ancestors of `el` are available only once it is on the page.
  const placed = new ResizeObserver(() => {
    if (!el.isConnected) return;
    placed.disconnect();
    const display = outermost(el);
    const mend = () => {
      for (const header of fresh(display, FOLD)) mendFold(header);
      for (const handle of fresh(display, HANDLE)) mendHandle(handle);
      for (const readout of fresh(display, READOUT)) readout.setAttribute("aria-label", nameOf(readout));
    };
    const watch = new MutationObserver(mend);
    watch.observe(display, { childList: true, subtree: true });
    life.addEventListener("abort", () => watch.disconnect(), { once: true });
    mend();
  });
  placed.observe(el);
  life.addEventListener("abort", () => placed.disconnect(), { once: true });
}

function outermost(el: HTMLElement): HTMLElement {
  let display = el;
  for (let node: HTMLElement | null = el; node; node = node.parentElement) {
    if (node.classList.contains("jupyter-widgets")) display = node;
  }
  return display;
}

function fresh(display: HTMLElement, selector: string): HTMLElement[] {
  const all = [...display.querySelectorAll<HTMLElement>(selector)].filter((element) => !DONE.has(element));
  for (const element of all) DONE.add(element);
  return all;
}

/** Turn a fold's header into a button that announces whether the fold is open. */
function mendFold(header: HTMLElement): void {
  const fold = header.parentElement;
  const contents = header.nextElementSibling;
  if (!fold || !contents) return;
  contents.id ||= `sw-fold-${++folds}`;
  header.tabIndex = 0;
  header.setAttribute("role", "button");
  header.setAttribute("aria-controls", contents.id);
  header.querySelector("i")?.setAttribute("aria-hidden", "true"); // the arrow is a character of an icon font
  header.dataset.lmSuppressShortcuts = "true"; // otherwise Enter makes JupyterLab edit the cell
  const say = () => header.setAttribute("aria-expanded", String(fold.classList.contains(OPEN)));
  new MutationObserver(say).observe(fold, { attributeFilter: ["class"] });
  say();
  header.addEventListener("keydown", (event) => {
    if (event.target !== header || (event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) header.click();
  });
}

/** Label a slider's handle with the name of its control and the displayed value. */
function mendHandle(handle: HTMLElement): void {
  const control = handle.closest(".sw-control");
  if (!control) return;
  const handles = [...control.querySelectorAll(".noUi-handle")];
  const end = handles.length > 1 ? [", from", ", to"][handles.indexOf(handle)] : "";
  handle.setAttribute("aria-label", `${nameOf(handle)}${end}`);
  const readout = control.querySelector(".widget-readout");
  if (handles.length > 1 || !readout) return;
  const unit = [...control.classList].find((name) => name.startsWith("sw-unit-"))?.slice("sw-unit-".length);
  const say = () => {
    const value = readout.textContent?.trim() ?? "";
    const text = unit && /\d$/.test(value) ? `${value} ${unit}` : value;
    // The slider overwrites it with its position at every move.
    if (value && handle.getAttribute("aria-valuetext") !== text) handle.setAttribute("aria-valuetext", text);
  };
  const watch = new MutationObserver(say);
  watch.observe(handle, { attributeFilter: ["aria-valuetext"] });
  watch.observe(readout, { childList: true, characterData: true, subtree: true });
  say();
}

function nameOf(part: HTMLElement): string {
  return part.closest(".sw-control")?.querySelector(".widget-label")?.textContent?.trim() ?? "";
}
