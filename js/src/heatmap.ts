// The heatmap view: an anywidget shell around core/. It writes no trait; see view.ts.

import type { AnyModel } from "@anywidget/types";
import { HeatmapView } from "./view.ts";

function render({ model, el }: { model: AnyModel; el: HTMLElement }): () => void {
  const view = new HeatmapView(model, el);
  return () => view.remove();
}

export default { render };
