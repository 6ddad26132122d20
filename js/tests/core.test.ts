import { describe, expect, it } from "vitest";
import { clipLimits, histogram } from "../src/core/clip.ts";
import { type Cause, Coalescer } from "../src/core/coalesce.ts";
import { Composer } from "../src/core/compose.ts";
import { readDisplay } from "../src/core/display.ts";
import { codeValue, decodeCodes, decodeFrame, LEVELS, nearest, toBytes, ZERO } from "../src/core/frame.ts";
import { inkOn, luminance } from "../src/core/ink.ts";
import { Acknowledger, compare, Newest, receive, type Stamp } from "../src/core/order.ts";
import { pngSize } from "../src/core/png.ts";

const raw = (codes: number[], extra = {}) => ({
  generation: 3,
  index: 1,
  final: false,
  height: 1,
  width: codes.length,
  low: 0,
  high: 1,
  signed: false,
  codes: Uint16Array.from(codes),
  ...extra,
});

describe("decoding", () => {
  it.each([0, 1, 2, 3])("reads little-endian codes at offset %i", (offset) => {
    const buffer = new ArrayBuffer(16);
    const view = new DataView(buffer, offset, 6);
    [0, 513, 65534].forEach((code, i) => {
      view.setUint16(2 * i, code, true);
    });
    expect([...decodeCodes(view)]).toEqual([0, 513, 65534]);
  });

  it("copies the codes out of the message's buffer", () => {
    const message = Uint16Array.of(7, 8);
    const codes = decodeCodes(message);
    message[0] = 9;
    expect([...codes]).toEqual([7, 8]);
  });

  it("returns null for a missing or damaged frame and for an empty map", () => {
    expect(decodeFrame({})).toBeNull();
    expect(decodeFrame(null)).toBeNull();
    expect(decodeFrame(undefined)).toBeNull();
    expect(decodeFrame(raw([1, 2], { width: 3 }))).toBeNull();
    expect(decodeFrame(raw([], { height: 0 }))).toBeNull();
    expect(decodeFrame(raw([1, 2]))?.codes).toEqual(Uint16Array.of(1, 2));
  });

  it("decodes zero to exactly zero and the extreme codes to the limits", () => {
    const map = { low: -0.3, high: 0.3 };
    expect(codeValue(map, ZERO)).toBe(0);
    expect(codeValue(map, 0)).toBe(-0.3);
    expect(codeValue(map, LEVELS)).toBeCloseTo(0.3, 15);
  });

  it("accepts any byte container", () => {
    const buffer = Uint8Array.of(1, 2, 3, 4).buffer;
    expect([...toBytes(buffer)]).toEqual([1, 2, 3, 4]);
    expect([...toBytes(new DataView(buffer, 1, 2))]).toEqual([2, 3]);
    expect([...toBytes(null)]).toEqual([]);
  });

  it("spreads the pixels of a map of another size evenly", () => {
    expect([0, 1, 2, 3].map((i) => nearest(i, 4, 2))).toEqual([0, 0, 1, 1]);
    expect([0, 1].map((i) => nearest(i, 2, 4))).toEqual([1, 3]);
    expect(nearest(5, 9, 9)).toBe(5);
  });

  it("reads the size of a PNG before it is decoded", () => {
    const head = Uint8Array.of(
      ...[0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, 0x49, 0x48, 0x44, 0x52],
      ...[0, 0, 1, 0, 0, 0, 0, 200],
    );
    expect(pngSize(head)).toEqual({ width: 256, height: 200 });
    expect(pngSize(head.subarray(1))).toBeNull();
    expect(pngSize(new Uint8Array(0))).toBeNull();
  });
});

it("handles a code that no valid map contains", () => {
  for (const signed of [false, true]) {
    const codes = Uint16Array.of(65535);
    expect(clipLimits(histogram(codes, signed), 1, [0, 99])).toHaveLength(2);
  }
});

describe("composing", () => {
  const table = (value: number) => new Uint8Array(768).fill(value);
  const traits: Record<string, unknown> = {
    colormap_luts: table(10),
    diverging_luts: table(20),
    opacity: 1,
    clip: [0, 100],
    threshold: 0,
    blend: 1,
  };
  const display = readDisplay((name) => traits[name])!;

  it("uses the color table of signed or unsigned maps, over gray if there is no image", () => {
    const composer = new Composer();
    const unsigned = decodeFrame(raw([0, 9]))!;
    const signed = decodeFrame(raw([0, 9], { signed: true, low: -1 }))!;
    expect([...composer.blend(unsigned, null, display).data]).toEqual([10, 10, 10, 255, 10, 10, 10, 255]);
    expect(composer.blend(signed, null, display).data[0]).toBe(20);
    expect(composer.blend(unsigned, null, { ...display, opacity: 0 }).data[0]).toBe(128);
  });

  it("reads a pixel through a map of another size", () => {
    const composer = new Composer();
    const frame = decodeFrame(raw([0, LEVELS]))!;
    const size = { width: 4, height: 3 };
    expect(composer.read(frame, size, 3, 2)).toEqual({ x: 3, y: 2, value: 1, share: 1 });
    expect(composer.read(frame, size, 1, 0)).toEqual({ x: 1, y: 0, value: 0, share: 0 });
    expect(composer.read(null, size, 1, 0).value).toBeNull();
  });

  it("gives a share of 0 if the map is zero", () => {
    const zero = decodeFrame(raw([0, 0], { high: 0 }))!;
    expect(new Composer().read(zero, zero, 0, 0)).toEqual({ x: 0, y: 0, value: 0, share: 0 });
  });
});

describe("order", () => {
  it("compares generation before index", () => {
    expect(compare({ generation: 2, index: 0 }, { generation: 1, index: 9 })).toBeGreaterThan(0);
    expect(compare({ generation: 2, index: 0 }, { generation: 2, index: 1 })).toBeLessThan(0);
  });

  it("never goes back to an older frame, in whatever order frames arrive", () => {
    let seed = 1;
    const random = (n: number) => {
      seed = (seed * 48271) % 2147483647;
      return seed % n;
    };
    const newest = new Newest<Stamp>();
    let shown: Stamp = { generation: -1, index: -1 };
    for (let i = 0; i < 500; i++) {
      const taken = newest.offer({ generation: random(9), index: random(9) });
      const current = newest.current!;
      expect(compare(current, shown)).toBeGreaterThanOrEqual(0);
      if (!taken) expect(current).toBe(shown);
      shown = current;
    }
    expect(shown).toEqual({ generation: 8, index: 8 });
  });

  it("accepts any frame after it was cleared", () => {
    const newest = new Newest<Stamp>();
    newest.offer({ generation: 5, index: 5 });
    newest.clear();
    expect(newest.offer({ generation: 1, index: 0 })).toBe(true);
  });
});

/** A fake clock that is advanced explicitly. */
class FakeClock {
  now = 0;
  #next = 1;
  #waiting = new Map<number, { at: number; callback: () => void }>();

  readonly timers = {
    set: (callback: () => void, ms: number) => {
      this.#waiting.set(this.#next, { at: this.now + ms, callback });
      return this.#next++;
    },
    clear: (handle: unknown) => {
      this.#waiting.delete(handle as number);
    },
  };
  readonly frames = {
    request: (callback: () => void) => this.timers.set(callback, 16),
    cancel: (handle: number) => this.timers.clear(handle),
  };

  get pending(): number {
    return this.#waiting.size;
  }

  advance(ms: number): void {
    this.now += ms;
    for (const [handle, { at, callback }] of [...this.#waiting]) {
      if (at <= this.now && this.#waiting.delete(handle)) callback();
    }
  }
}

describe("acknowledging", () => {
  const start = () => {
    const clock = new FakeClock();
    const sent: Stamp[] = [];
    return { clock, sent, acknowledger: new Acknowledger((s) => sent.push(s), 250, clock.timers) };
  };

  it("acknowledges a painted frame once", () => {
    const { clock, sent, acknowledger } = start();
    acknowledger.expect({ generation: 1, index: 0 }, {});
    acknowledger.painted();
    acknowledger.painted();
    clock.advance(1000);
    expect(sent).toEqual([{ generation: 1, index: 0 }]);
    expect(clock.pending).toBe(0);
  });

  it("forgets a frame that was removed", () => {
    const { clock, sent, acknowledger } = start();
    const newest = new Newest<Stamp>();
    expect(receive({ generation: 5, index: 0 }, {}, newest, acknowledger)).toBe(true);
    expect(receive({ generation: 4, index: 0 }, {}, newest, acknowledger)).toBe(false);
    expect(receive({ generation: 5, index: 0 }, {}, newest, acknowledger)).toBe(false); // sent again
    expect(receive(null, {}, newest, acknowledger)).toBe(true);
    expect(newest.current).toBeNull();
    clock.advance(1000);
    expect(sent).toEqual([]);
    expect(receive({ generation: 1, index: 0 }, {}, newest, acknowledger)).toBe(true);
  });

  it("acknowledges no paint without a new frame", () => {
    const { sent, acknowledger } = start();
    acknowledger.painted();
    expect(sent).toEqual([]);
  });

  it("acknowledges only the newest of several frames", () => {
    const { sent, acknowledger } = start();
    acknowledger.expect({ generation: 1, index: 0 }, {});
    acknowledger.expect({ generation: 1, index: 1 }, {});
    acknowledger.painted();
    expect(sent).toEqual([{ generation: 1, index: 1 }]);
  });

  it("acknowledges after a while even if a hidden tab does not paint", () => {
    const { clock, sent, acknowledger } = start();
    acknowledger.expect({ generation: 1, index: 0 }, {});
    clock.advance(249);
    expect(sent).toEqual([]);
    clock.advance(1);
    expect(sent).toEqual([{ generation: 1, index: 0 }]);
    acknowledger.painted();
    expect(sent).toHaveLength(1);
    acknowledger.expect({ generation: 1, index: 1 }, {});
    clock.advance(250);
    expect(sent).toHaveLength(2);
  });

  it("acknowledges once for all views of a model, and again if the frame is resent", () => {
    const { sent, acknowledger } = start();
    const other = new Acknowledger((s) => sent.push(s));
    const message = {};
    for (const view of [acknowledger, other]) view.expect({ generation: 1, index: 0 }, message);
    for (const view of [acknowledger, other]) view.painted();
    expect(sent).toHaveLength(1);
    acknowledger.expect({ generation: 1, index: 0 }, {});
    acknowledger.painted();
    expect(sent).toHaveLength(2);
  });

  it("sends nothing after the view was removed", () => {
    const { clock, sent, acknowledger } = start();
    acknowledger.expect({ generation: 1, index: 0 }, {});
    acknowledger.cancel();
    clock.advance(1000);
    acknowledger.painted();
    expect(sent).toEqual([]);
  });
});

describe("coalescing", () => {
  const start = () => {
    const clock = new FakeClock();
    const painted: Cause[] = [];
    return { clock, painted, paints: new Coalescer((cause) => painted.push(cause), clock.frames) };
  };

  it("paints once for all requests of an animation frame, with the most important cause", () => {
    const { clock, painted, paints } = start();
    for (let i = 0; i < 50; i++) paints.request(i === 30 ? "display" : "layer");
    paints.request("resize");
    expect(painted).toEqual([]);
    clock.advance(16);
    expect(painted).toEqual(["display"]);
    clock.advance(160);
    expect(painted).toHaveLength(1);
  });

  it("paints again for a request during painting", () => {
    const clock = new FakeClock();
    let count = 0;
    const paints: Coalescer = new Coalescer(() => {
      if (++count < 3) paints.request("layer");
    }, clock.frames);
    paints.request("frame");
    for (let i = 0; i < 9; i++) clock.advance(16);
    expect(count).toBe(3);
  });

  it("paints nothing after it was cancelled, and again after a new request", () => {
    const { clock, painted, paints } = start();
    paints.request("frame");
    paints.cancel();
    clock.advance(100);
    expect(painted).toEqual([]);
    paints.request("resize");
    clock.advance(16);
    expect(painted).toEqual(["resize"]);
  });
});

describe("ink", () => {
  it("has a contrast of at least 4.5 on every ground", () => {
    let least = 21;
    for (let red = 0; red < 256; red += 5)
      for (let green = 0; green < 256; green += 5)
        for (let blue = 0; blue < 256; blue += 5) {
          const ground = luminance(red, green, blue) + 0.05;
          least = Math.min(least, inkOn(red, green, blue) === "#000" ? ground / 0.05 : 1.05 / ground);
        }
    expect(least).toBeGreaterThan(4.5);
  });

  it("computes the luminances of WCAG", () => {
    expect(luminance(255, 255, 255)).toBeCloseTo(1, 12);
    expect(luminance(255, 0, 0)).toBeCloseTo(0.2126, 12);
    expect(luminance(119, 119, 119)).toBeCloseTo(0.1845, 4);
  });
});
