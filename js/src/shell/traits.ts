// What every view does with its model: follow its traits, and send to the kernel.

import type { AnyModel } from "@anywidget/types";

/** Read a trait now and whenever it changes. */
export function follow(model: AnyModel, trait: string, read: () => void, life: AbortSignal): void {
  const event = `change:${trait}`;
  model.on(event, read);
  life.addEventListener("abort", () => model.off(event, read));
  read();
}

/** A saved page has no kernel; everything else in a view still works. */
export function tell(send: () => void): void {
  try {
    send();
  } catch (error) {
    console.debug("[saliency_widgets] no kernel to tell", error);
  }
}
