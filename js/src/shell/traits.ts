// Helpers shared by all views: follow traits of the model, and send to the kernel.

import type { AnyModel } from "@anywidget/types";

/** Read a trait now and whenever it changes. */
export function follow(model: AnyModel, trait: string, read: () => void, life: AbortSignal): void {
  const event = `change:${trait}`;
  model.on(event, read);
  life.addEventListener("abort", () => model.off(event, read));
  read();
}

/** Send to the kernel. On a saved page, which has none, the error is logged and the view keeps working. */
export function tell(send: () => void): void {
  try {
    send();
  } catch (error) {
    console.debug("[saliency_widgets] no kernel to send to", error);
  }
}
