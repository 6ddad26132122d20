// Creates and updates elements.

type Attributes = Record<string, string>;

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  name: string,
  attributes: Attributes = {},
  children: (Node | string)[] = [],
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.className = `sw-${name}`;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Write a text only if it changed, because a screen reader announces every write. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

const SHOWN = new WeakMap<HTMLElement, string>();

/** Replace the children only if the content changed, so that tooltips and selections survive. */
export function fill<T>(
  parent: HTMLElement,
  items: T[],
  build: (item: T, index: number) => HTMLElement,
): void {
  const key = JSON.stringify(items);
  if (SHOWN.get(parent) === key) return;
  SHOWN.set(parent, key);
  parent.replaceChildren(...items.map(build));
}
