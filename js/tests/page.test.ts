// Saved pages: codes are unpacked exactly, and recorded maps are found by the chosen settings.
import { readFileSync } from "node:fs";
import { deflateSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { type Packing, unpack } from "../src/core/packing.ts";
import { type Axis, Recording } from "../src/core/recording.ts";
import { readArchive } from "../src/page/archive.ts";
import { PageModel } from "../src/page/models.ts";

interface Packed {
  packing: Packing;
  packed: string;
  codes: string;
  shape: [number, number];
}

const GOLDENS = JSON.parse(readFileSync(new URL("goldens.json", import.meta.url), "utf8")) as {
  packed: Packed[];
};
const bytes = (text: string) => new Uint8Array(Buffer.from(text, "base64"));

describe("packed codes", () => {
  it("cover both kinds of packing", () => {
    expect(new Set(GOLDENS.packed.map(({ packing }) => packing))).toEqual(new Set(["planes", "steps"]));
  });

  it.each(GOLDENS.packed)("$packing of shape $shape", ({ packing, packed, codes, shape }) => {
    expect(unpack(packing, bytes(packed), shape[1])).toEqual(bytes(codes));
  });

  it("are left unchanged if they are not packed", () => {
    const raw = Uint8Array.of(1, 2, 3);
    expect(unpack("raw", raw, 0)).toBe(raw);
  });
});

const axis = (name: string, count: number, rest: Partial<Axis> = {}): Axis => ({
  name,
  label: name,
  help: "",
  labels: Array.from({ length: count }, (_, i) => String(i)),
  begin: 0,
  ordered: false,
  ...rest,
});

describe("a recording", () => {
  const axes = [axis("method", 3, { begin: 1 }), axis("n", 4, { only: { axis: "method", at: [1, 2] } })];

  it("opens at the settings at which the page was saved", () => {
    expect(new Recording(axes).key).toBe("1 0");
  });

  it("ignores a setting that doesn't matter, and remembers its value", () => {
    const recording = new Recording(axes);
    recording.choose("n", 3);
    recording.choose("method", 0);
    expect(recording.matters(axes[1])).toBe(false);
    expect(recording.key).toBe("0 -");
    recording.choose("method", 2);
    expect(recording.key).toBe("2 3");
  });

  it("stays within its axes, and ignores unknown ones", () => {
    const recording = new Recording(axes);
    recording.choose("n", 17);
    recording.choose("method", -2);
    recording.choose("nothing", 1);
    expect([recording.at("n"), recording.at("method"), recording.at("nothing")]).toEqual([3, 0, undefined]);
  });
});

describe("an archive", () => {
  const pack = (contents: object, ...blocks: Uint8Array[]) => {
    const json = Buffer.from(JSON.stringify(contents));
    const size = Buffer.alloc(4);
    size.writeUInt32LE(json.length);
    return deflateSync(Buffer.concat([size, json, ...blocks])).toString("base64");
  };

  it("puts blocks of bytes into their models, at any depth", async () => {
    const text = pack(
      {
        models: [{ a: { $bytes: 1 }, b: [{ c: { $bytes: 0 } }], d: "</script>" }],
        bytes: [
          [2, "raw", 0],
          [4, "planes", 2],
        ],
      },
      Uint8Array.of(7, 8),
      Uint8Array.of(1, 2, 3, 4),
    );
    const { models } = await readArchive(`\n${text}\n`);
    const [{ a, b, d }] = models as [{ a: DataView; b: [{ c: DataView }]; d: string }];
    expect([...new Uint8Array(a.buffer, a.byteOffset, a.byteLength)]).toEqual([3, 1, 4, 2]);
    expect([b[0].c.getUint8(0), b[0].c.getUint8(1), b[0].c.byteLength]).toEqual([7, 8, 2]);
    expect(d).toBe("</script>");
  });

  it("refuses an archive that was cut off", async () => {
    const text = pack({ models: [], bytes: [] }, new Uint8Array(1000));
    await expect(readArchive(text.slice(0, 40))).rejects.toThrow();
  });
});

describe("a page's model", () => {
  it("notifies listeners of changes once, and not after they were removed", () => {
    const model = new PageModel({ a: 1, b: 2 }, { get_model: async () => null });
    const heard: string[] = [];
    const listener = () => heard.push("a");
    model.on("change:a", listener);
    model.on("change", () => heard.push("any"));
    model.set({ a: 5, b: 2 });
    model.set("b", 2);
    expect(heard).toEqual(["a", "any"]);
    expect(model.get("a")).toBe(5);
    model.off("change:a", listener);
    model.set("a", 6);
    expect(heard).toEqual(["a", "any", "any"]);
    model.off();
    model.set("a", 7);
    expect(heard.length).toBe(3);
    expect(() => model.send()).not.toThrow();
  });
});
