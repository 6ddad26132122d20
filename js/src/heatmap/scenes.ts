// The scenes by kind of input.

import { SignalScene } from "../signal/scene.ts";
import { TextScene } from "../text/flow.ts";
import { VolumeScene } from "../volume/scene.ts";
import type { RawScene, Scene, SceneHost } from "./scene.ts";

const SCENES: Record<string, new (host: SceneHost) => Scene> = {
  signal: SignalScene,
  text: TextScene,
  volume: VolumeScene,
};

/** Create what shows an input; null for an image. */
export function sceneOf(raw: RawScene | undefined, host: SceneHost): Scene | null {
  const kind = raw?.kind ?? "";
  return kind in SCENES ? new SCENES[kind](host) : null;
}
