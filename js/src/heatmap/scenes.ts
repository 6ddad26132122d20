// The scenes by kind of input.

import { SignalScene } from "../signal/scene.ts";
import { TextScene } from "../text/flow.ts";
import { VolumeScene } from "../volume/scene.ts";
import type { Scene, SceneHost } from "./scene.ts";

export const SCENES: Record<string, new (host: SceneHost) => Scene> = {
  signal: SignalScene,
  text: TextScene,
  volume: VolumeScene,
};
