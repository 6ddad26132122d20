// Reserves the largest height an element has needed at its current width, so that the content below doesn't jump.

export function reserveHeight(element: HTMLElement): () => void {
  let width = 0;
  let height = 0;
  return () => {
    if (element.clientWidth !== width) {
      width = element.clientWidth;
      height = 0;
      element.style.removeProperty("--sw-reserved");
    }
    if (element.offsetHeight <= height) return;
    height = element.offsetHeight;
    element.style.setProperty("--sw-reserved", `${height}px`);
  };
}
