// The scenes by kind of input.

import { TextScene } from "../text/flow.ts";
import type { Scene, SceneHost } from "./scene.ts";

export const SCENES: Record<string, new (host: SceneHost) => Scene> = {
  text: TextScene,
};
