// A saved page: the regular views on models that need no kernel, and controls for the settings.

import type { AnyModel } from "@anywidget/types";
import { toBytes } from "../core/frame.ts";
import { pngSize } from "../core/png.ts";
import { make } from "../shell/elements.ts";
import views from "../views.ts";
import type { RawVolume } from "../volume/scene.ts";
import { type Archive, readArchive } from "./archive.ts";
import { makeModels, type PageModel } from "./models.ts";
import { Recorded } from "./recorded.ts";
import { settingRows } from "./settings.ts";

async function open(): Promise<void> {
  const archive = await readArchive(find("sw-archive").textContent ?? "");
  const models = await makeModels(archive);
  const controls = find("sw-controls");
  const display = settingRows(
    archive.settings,
    archive.displays.map((index) => models[index]),
  );
  const predictions = predictionRows(archive);
  const changed = () => {
    showFitting(display, models);
    predictions.mark(recorded.target);
  };
  const recorded: Recorded = new Recorded(archive, models, changed);
  changed();
  if (recorded.rows.length > 0) controls.append(section("Recorded", recorded.rows));
  if (display.length > 0) controls.append(section("Display", display));
  if (predictions.rows.length > 0) controls.append(section("Predictions", predictions.rows));
  controls.hidden = controls.children.length === 0;
  const view = find("sw-view");
  const root = models[archive.root];
  const { kind, planes, size } = (root.get("scene") ?? {}) as RawVolume;
  const frame = planes?.length === 1 && size ? { width: size[2], height: size[1] } : null; // of a video
  const image = frame ?? pngSize(toBytes(root.get("image") as DataView | undefined));
  if (image) view.style.setProperty("--sw-ratio", String(image.width / image.height));
  view.dataset.kind = String((!image && kind) || root.get("kind") || "");
  view.replaceChildren();
  views.render({ model: root as unknown as AnyModel, el: view });
  // Focus a lesson, so that its keys work immediately.
  view.querySelector<HTMLElement>(".sw-lesson")?.focus({ preventScroll: true });
  // Exposed for debugging in the browser's console.
  Object.assign(globalThis, { saliency: { models, root } });
  document.documentElement.dataset.opened = "true";
}

function section(title: string, rows: HTMLElement[]): HTMLElement {
  return make("section", "page-section", { "aria-label": title }, [
    make("h2", "page-heading", {}, [title]),
    ...rows,
  ]);
}

/** Hide the colormap menus that no map on the page uses. */
function showFitting(rows: HTMLElement[], models: readonly PageModel[]): void {
  const frames = models.map((model) => model.get("frame") as { signed?: boolean } | undefined);
  const signs = frames.map((frame) => frame?.signed).filter((signed) => signed !== undefined);
  if (signs.length === 0) return;
  for (const row of rows) {
    if (row.dataset.name === "colormap") row.hidden = !signs.includes(false);
    if (row.dataset.name === "diverging") row.hidden = !signs.includes(true);
  }
}

function predictionRows({ predictions }: Archive): {
  rows: HTMLElement[];
  mark(target: number | null): void;
} {
  const rows = predictions.map(({ name, share }) => {
    const bar = make("span", "page-bar");
    bar.style.setProperty("--sw-share", String(share));
    return make("div", "page-prediction", {}, [
      make("span", "page-name", { title: name }, [name]),
      bar,
      make("span", "page-share", {}, [`${(100 * share).toFixed(1)}%`]),
    ]);
  });
  const mark = (target: number | null) => {
    rows.forEach((row, i) => {
      const chosen = predictions[i].index === target;
      row.classList.toggle("sw-page-chosen", chosen);
      if (chosen) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    });
  };
  return { rows, mark };
}

function find(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page is incomplete: ${id} is missing`);
  return element;
}

open().catch((error: unknown) => {
  console.error("[saliency_widgets] this page could not be opened", error);
  const said = document.getElementById("sw-view");
  if (!said) return;
  const remedy =
    typeof DecompressionStream === "undefined"
      ? "This browser is too old. Use Chrome 110, Firefox 113, Safari 16.4 or newer."
      : "The file is damaged: save or copy it again.";
  said.textContent = `This page could not be opened (${error instanceof Error ? error.message : error}). ${remedy}`;
});
