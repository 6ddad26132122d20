"""Write the results of saliency_widgets.render for many cases, which js/core must reproduce."""

import base64
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from saliency_widgets import render  # noqa: E402

rng = np.random.default_rng(20261123)


def packed(array: np.ndarray, dtype: str) -> str:
    """The bytes of an array in base64."""
    return base64.b64encode(np.ascontiguousarray(array, dtype=dtype).tobytes()).decode()


def maps():
    """Yield a name, the values of a map, and whether it is signed."""
    shapes = [(1, 1), (1, 7), (5, 3), (9, 16), (16, 9), (24, 24)]
    for height, width in shapes:
        size = (height, width)
        yield "normal", rng.normal(size=size) * 10 ** rng.uniform(-6, 6), True
        yield "uniform", rng.uniform(size=size) * 10 ** rng.uniform(-6, 6), False
        yield "heavy-tailed", rng.standard_cauchy(size=size) ** 3, True
        yield "heavy-tailed", np.abs(rng.standard_cauchy(size=size)) ** 3, False
        yield "sparse", rng.normal(size=size) * (rng.uniform(size=size) < 0.02), True
        yield "sparse", np.abs(rng.normal(size=size)) * (rng.uniform(size=size) < 0.02), False
    for signed in (False, True):
        yield "zero", np.zeros((6, 8)), signed
        yield "constant", np.full((6, 8), 3.25), signed
        yield "two values", np.where(rng.uniform(size=(6, 8)) < 0.5, 0.0, 2.0), signed
        yield "tiny", rng.uniform(size=(6, 8)) * 1e-290, signed
    yield "negative", -rng.uniform(size=(6, 8)), True
    yield "one sign at the ends", np.where(rng.uniform(size=(6, 8)) < 0.5, -2.0, 2.0), True


CLIPS = [(0, 99), (0, 100), (1, 99), (0, 0), (100, 100), (50, 50), (2.5, 97.5), (33.3, 66.6), (99.9, 100)]


def drawn(param):
    """A random value of a display setting, often its default or one of its limits."""
    if param.kind == "choice":
        return str(rng.choice(param.options()))
    if param.kind == "range":
        ends = tuple(sorted(rng.uniform(param.low, param.high, size=2).tolist()))
        return ends if rng.uniform() < 0.3 else CLIPS[rng.integers(len(CLIPS))]
    middle = (param.low + param.high) / 2
    return float(rng.choice([param.low, param.default, middle, param.high, rng.uniform(param.low, param.high)]))


def trait(param, value):
    """The value of a setting as the page receives it."""
    return param.options().index(value) if param.kind == "choice" else value


def case(name, values, signed):
    """One map with random settings, and everything that render computes from it."""
    q = render.quantize(values, signed=signed)
    settings = {param.name: drawn(param) for param in render.DISPLAY}
    limits = render.clip_limits(q.codes, signed, settings["clip"])
    height, width = q.codes.shape
    if rng.uniform() < 0.25:  # a coarse map over a finer image, or the other way round
        height, width = (int(n) for n in rng.integers(1, 40, size=2))
    image = rng.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    ticks = [render.bar_ticks(q, limits, count) for count in (3, 5)]
    return {
        "name": f"{name} {'signed' if signed else 'unsigned'} {values.shape} {settings}",
        "codes": packed(q.codes, "<u2"),
        "shape": q.codes.shape,
        "low": q.low,
        "high": q.high,
        "signed": signed,
        "display": {param.name: trait(param, settings[param.name]) for param in render.DISPLAY},
        "limits": limits,
        "strength": render.strength(q.codes, signed, limits).ravel().tolist(),
        "values": render.dequantize(q).ravel().tolist(),
        "shares": render.shares(q).ravel().tolist(),
        "image": packed(image, "u1"),
        "imageShape": [height, width],
        "blended": packed(render.blend(image, q, **settings), "u1"),
        "bar": packed(render.bar_colors(signed, limits, **settings), "u1"),
        "ticks": [[[k.position, k.value, k.label] for k in row] for row in ticks],
    }


def numbers():
    """Numbers and their texts, including halves and powers of ten."""
    fixed = [
        0.0,
        -0.0,
        1,
        -1,
        0.5,
        1.125,
        1.135,
        2.675,
        0.001,
        0.0009996,
        0.00099949,
        9.995,
        9999.9,
        9994.9,
        1e4,
        1e300,
    ]
    drawn = (rng.normal(size=300) * 10.0 ** rng.integers(-12, 12, size=300)).tolist()
    return [[v, render.format_number(v)] for v in [*fixed, *drawn]]


def shared():
    """Maps that share a scale, with its ends, the limits of each map, and a difference."""
    for _ in range(40):
        signed = bool(rng.uniform() < 0.5)
        count, size = int(rng.integers(1, 5)), (int(rng.integers(1, 20)), int(rng.integers(1, 20)))
        scales = 10 ** rng.uniform(-3, 3, size=count) * (rng.uniform(size=count) > 0.15)
        values = [rng.normal(size=size) * scale * (rng.uniform(size=size) < 0.7) for scale in scales]
        maps = [render.quantize(v if signed else np.abs(v), signed=signed) for v in values]
        clip = CLIPS[rng.integers(len(CLIPS))]
        ends = render.shared_ends(maps, clip)
        a, b = maps[0], maps[-1]
        units = (1.0, 1.0) if rng.uniform() < 0.5 else tuple(rng.uniform(0.1, 10, size=2).tolist())
        minus = render.difference(a, b, units)
        yield {
            "signed": signed,
            "shape": size,
            "clip": clip,
            "maps": [{"codes": packed(m.codes, "<u2"), "low": m.low, "high": m.high} for m in maps],
            "ends": ends,
            "limits": [render.limits_of(m, ends) for m in maps],
            "units": units,
            "difference": {"codes": packed(minus.codes, "<u2"), "low": minus.low, "high": minus.high},
        }


def packing():
    """Maps and their packed codes: random ones, smooth ones that wrap around, and constant ones."""
    smooth = (np.add.outer(np.arange(9), np.arange(40)) * 1300 % 65535).astype(np.uint16)
    for codes in (rng.integers(0, 65535, (7, 5)).astype(np.uint16), smooth, np.full((3, 4), 65534, np.uint16)):
        how, packed_codes = render.pack_codes(codes)
        yield {
            "packing": how,
            "packed": base64.b64encode(packed_codes).decode(),
            "codes": packed(codes, "<u2"),
            "shape": codes.shape,
        }


def setting(param):
    """A display setting as Python defines it."""
    return {"name": param.name, "kind": param.kind, "low": param.low, "high": param.high, "options": param.options()}


goldens = {
    "cases": [case(*m) for _ in range(8) for m in maps()],
    "shared": list(shared()),
    "numbers": numbers(),
    "settings": [setting(param) for param in render.DISPLAY],
    "tables": {
        "colormap_luts": base64.b64encode(render.lut_bytes(render.SEQUENTIAL)).decode(),
        "diverging_luts": base64.b64encode(render.lut_bytes(render.DIVERGING)).decode(),
    },
    "packed": list(packing()),
}
(HERE / "goldens.json").write_text(json.dumps(goldens))
