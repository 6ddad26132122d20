// The display settings follow their controls in the page. The controls themselves send one message per move.

import type { AnyModel } from "@anywidget/types";
import { type LiveModel, resolveModel } from "./models.ts";

/** A setting's name, its control's model, and the trait with the value, which is the index for a menu. */
type Source = readonly [name: string, model: LiveModel, trait: "index" | "value"];

async function initialize({ model }: { model: AnyModel }): Promise<() => void> {
  let undo: (() => void)[] = [];
  const follow = async () => {
    const references = (model.get("sources") ?? {}) as Record<string, unknown>;
    const sources: Source[] = [];
    for (const [name, reference] of Object.entries(references)) {
      const source = await resolveModel(model.widget_manager, reference);
      if (source) sources.push([name, source, source.get("index") === undefined ? "value" : "index"]);
    }
    for (const leave of undo) leave();
    undo = sources.map(([name, source, trait]) => {
      const read = () => model.set(name, source.get(trait));
      const event = `change:${trait}`;
      source.on(event, read);
      read();
      return () => source.off(event, read);
    });
  };
  model.on("change:sources", follow);
  await follow();
  return () => {
    model.off("change:sources", follow);
    for (const leave of undo) leave();
  };
}

export default { initialize };
