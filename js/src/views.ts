// The views of saliency_widgets: an anywidget shell around core/.

import type { AnyModel } from "@anywidget/types";
import { GridView } from "./grid/view.ts";
import { HeatmapView } from "./heatmap/view.ts";
import { LessonView } from "./lesson/view.ts";
import { mendControls } from "./shell/accessible.ts";
import { releaseClosed } from "./shell/release.ts";

/** A view that shows its model in `el` until it is removed. */
type View = new (model: AnyModel, el: HTMLElement) => { remove(): void };

/** The views by the trait `kind`. */
const VIEWS: Record<string, View> = { grid: GridView, heatmap: HeatmapView, lesson: LessonView };

function render({ model, el }: { model: AnyModel; el: HTMLElement }): () => void {
  const view = new VIEWS[String(model.get("kind") ?? "heatmap")](model, el);
  const life = new AbortController();
  mendControls(el, life.signal);
  const release = releaseClosed(model.widget_manager, model.get("root"));
  return () => {
    life.abort();
    view.remove();
    release();
  };
}

export default { render };
