// A stand-in for the kernel: one model with the traits the view reads, and a handle on it for the console.
import heatmap from "../../saliency_widgets/widgets/static/views.js";

export class Model {
  sent = [];
  #listeners = new Map();

  constructor(state, models = {}) {
    this.state = state;
    this.widget_manager = {
      get_model: async (id) => {
        if (!(id in models)) throw new Error(`no model ${id}`);
        return models[id];
      },
    };
  }

  get(name) {
    return this.state[name];
  }

  set(changes) {
    Object.assign(this.state, changes);
    for (const name of Object.keys(changes)) this.trigger(`change:${name}`);
    this.trigger("change");
  }

  on(events, callback) {
    for (const e of events.split(" ")) this.#of(e).add(callback);
  }

  off(events, callback) {
    for (const e of events.split(" ")) this.#of(e).delete(callback);
  }

  trigger(event) {
    for (const callback of [...this.#of(event)]) callback();
  }

  send(message) {
    this.sent.push(message);
  }

  get listeners() {
    return [...this.#listeners.values()].reduce((n, set) => n + set.size, 0);
  }

  #of(event) {
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    return this.#listeners.get(event);
  }
}

/** 256 colors through a few given ones. */
export function ramp(...stops) {
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1);
    const k = Math.min(stops.length - 2, Math.floor(at));
    return stops[k].map((v, c) => Math.round(v + (stops[k + 1][c] - v) * (at - k)));
  }).flat();
}

const INFERNO = ramp(
  [0, 0, 4],
  [40, 11, 84],
  [101, 21, 110],
  [159, 42, 99],
  [212, 72, 66],
  [245, 125, 21],
  [250, 193, 39],
  [252, 255, 164],
);
const COOLWARM = ramp([59, 76, 192], [141, 176, 254], [221, 221, 221], [244, 152, 122], [180, 4, 38]);

export function frame(generation, index, { signed, width, height, final = false }) {
  const codes = new Uint16Array(width * height);
  const bump = (x, y, cx, cy, r) =>
    Math.exp(-((x - cx * width) ** 2 + (y - cy * height) ** 2) / (r * width) ** 2);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const v = bump(x, y, 0.35, 0.4, 0.15) + 0.2 * Math.random() * bump(x, y, 0.5, 0.5, 0.4);
      const w = bump(x, y, 0.7, 0.6, 0.12);
      codes[i] = signed
        ? 32767 + Math.round(32767 * Math.max(-1, Math.min(1, (v - w) / 1.2)))
        : Math.round((65534 * (v + w)) / 1.4);
    }
  }
  const high = 0.0372;
  return {
    generation,
    index,
    final,
    height,
    width,
    low: signed ? -high : 0,
    high,
    signed,
    codes: new DataView(codes.buffer),
  };
}

export async function image(width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const sky = context.createLinearGradient(0, 0, width, height);
  sky.addColorStop(0, "#7aa5c9");
  sky.addColorStop(1, "#4b5a3a");
  context.fillStyle = sky;
  context.fillRect(0, 0, width, height);
  context.fillStyle = "#d8c39a";
  context.beginPath();
  context.arc(width * 0.36, height * 0.42, width * 0.16, 0, 7);
  context.fill();
  context.fillStyle = "#6b3f2a";
  context.fillRect(width * 0.62, height * 0.5, width * 0.18, height * 0.24);
  const blob = await canvas.convertToBlob({ type: "image/png" });
  return new DataView(await blob.arrayBuffer());
}

const STATES = {
  idle: { state: "idle" },
  running: { state: "running", done: 17, total: 50, unit: "samples", elapsed: 1.2, remaining: 18.2 },
  done: { state: "done", done: 50, total: 50, unit: "samples", elapsed: 3.61 },
  starting: { state: "running" },
  cached: { state: "done", done: 65, total: 65, unit: "gradients", elapsed: 0.01, cached: true },
  wrong: {
    state: "error",
    dim: true,
    done: 50,
    total: 50,
    unit: "samples",
    elapsed: 3.61,
    message: "No class is named 'purple elephant'.",
    remedy: "The last map stays; change a setting to go on.",
  },
  stopped: { state: "stopped", done: 17, total: 50, unit: "samples", elapsed: 1.2 },
  error: {
    state: "error",
    done: 17,
    total: 50,
    unit: "samples",
    elapsed: 1.2,
    message: "layer: expected a module path of this model, got 'features.99'.",
    remedy: "Known: 'features.0' to 'features.18'. Did you mean 'features.9'?",
  },
};

export async function makeModel({
  state = "running",
  signed = true,
  width = 224,
  height = 224,
  empty = false,
} = {}) {
  const display = new Model({
    colormap: 0,
    diverging: 0,
    opacity: 0.75,
    clip: [0, 99],
    threshold: 0,
    blend: 0,
    colormap_luts: new DataView(Uint8Array.from(INFERNO).buffer),
    diverging_luts: new DataView(Uint8Array.from(COOLWARM).buffer),
  });
  const layer = new Model({ width: 448, height: 448 });
  layer.canvas = document.createElement("canvas");
  layer.canvas.width = layer.canvas.height = 448;
  const model = new Model(
    {
      image: empty ? new DataView(new ArrayBuffer(0)) : await image(width, height),
      frame: state === "idle" || empty ? {} : frame(1, 0, { signed, width, height }),
      status: {
        generation: 1,
        title: "SmoothGrad · Egyptian cat (0.79)",
        readings:
          state === "idle"
            ? []
            : [
                {
                  label: "Completeness error",
                  value: "2.1%",
                  help: "The sum of the map against the change of the score.",
                },
                { label: "Standard error", value: "0.004" },
                { label: "Score", value: "11.3 → 0.42", help: "At the input and at the baseline." },
              ],
        notes:
          state === "idle"
            ? []
            : ["This model is in train mode: it was switched to eval for the computation."],
        message: "",
        remedy: "",
        ...STATES[state],
      },
      display: "IPY_MODEL_display",
      layers: ["IPY_MODEL_layer", "IPY_MODEL_closed"],
    },
    { display, layer },
  );
  return { model, display, layer };
}

const query = new URLSearchParams(location.search);
document.body.classList.toggle("dark", query.get("theme") === "dark");
const parts = await makeModel({
  state: query.get("state") ?? "running",
  signed: query.get("signed") !== "0",
  width: Number(query.get("w") ?? 224),
  height: Number(query.get("h") ?? 224),
  empty: query.has("empty"),
});
const el = document.createElement("div");
el.style.width = `${query.get("width") ?? 520}px`;
document.querySelector("#page").append(el);
globalThis.paints = [];
document.addEventListener("sw-paint", (event) => globalThis.paints.push(event.detail));
const cleanup = heatmap.render({ model: parts.model, el });
Object.assign(globalThis, parts, { el, cleanup, heatmap, frame, image });
