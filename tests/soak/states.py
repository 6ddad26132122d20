"""Stored states with changed bytes, JSON values or npz members: none of them loads as another map unnoticed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import io
import json
import math
import operator
import random
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xxhash
from ipywidgets.widgets import widget as registry
from torch import nn
from toys import conv_net, mlp

import saliency_widgets as sw
from saliency_widgets.api.io.document import checksum
from saliency_widgets.widgets import Explorer
from soak.figures import Figures

FAULTS = ("raw error", "memory", "wrong map", "unusable map", "explorer left open")
CONSTANT = 2 * 2**20  # bytes of memory allowed beyond twice the size that a state declares
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the RAM disk for temporary files, if there is one
OPENED = 4  # an explorer is made of one in this many states, of inconsistent ones of one in ten times as many
EVERY = 25  # memory is measured for one in this many states, because that is slow


class State(NamedTuple):
    """A valid state."""

    kind: str
    text: bytes
    packed: bytes
    attribution: sw.Attribution
    model: nn.Module
    transform: Any


class Changed(NamedTuple):
    """A changed state.

    Attributes:
        what: The kind of change.
        text: The JSON.
        packed: The npz.
        consistent: Whether the checksums were updated, so that it may be another valid state.
    """

    what: str
    text: bytes
    packed: bytes
    consistent: bool


def attack(seed: int, seconds: float, most: int | None = None) -> Figures:
    """Load states that were changed.

    Args:
        seed: The seed of the changes.
        seconds: How long to run.
        most: The maximum number of states.
    """
    figures = Figures()
    figures.expect_none_of(*FAULTS)
    until = time.monotonic() + seconds
    states = good_states()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step = 0
        while time.monotonic() < until and (most is None or step < most):
            rng = random.Random(f"{seed}/{step}")
            state = rng.choice(states)
            changed = rng.choice(MOVES)(rng, state)
            _load(
                figures, Path(folder), state, changed, f"seed {seed}, step {step}: {state.kind}, {changed.what}", step
            )
            step += 1
    return figures


def _load(figures: Figures, folder: Path, state: State, changed: Changed, example: str, step: int) -> None:
    path = folder / "state"
    path.with_suffix(".json").write_bytes(changed.text)
    path.with_suffix(".npz").write_bytes(changed.packed)
    figures.counts["states"] += 1
    figures.counts[changed.what] += 1
    measured = step % EVERY == 0
    if measured:
        tracemalloc.start()
    try:
        attribution = sw.load(path)
    except ValueError as error:
        clear = type(error) is ValueError and str(error).startswith("path: ") and len(str(error)) < 1000
        if not clear:
            figures.fault("raw error", f"{example}: {type(error).__name__}: {str(error)[:200]}")
        figures.counts["refused"] += 1
        attribution = None
    except BaseException as error:
        figures.fault("raw error", f"{example}: {type(error).__name__}: {str(error)[:200]}")
        attribution = None
    if measured:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        figures.counts["measured"] += 1
        most = 2 * stated(changed) + CONSTANT
        if peak > most and (peak := _peak(path)) > most:  # an explorer that was opened before may still use memory
            figures.fault("memory", f"{example}: {peak / 2**20:.1f} MiB")
    if attribution is not None:
        _look_at(figures, state, changed, attribution, example)
        if step % (OPENED if changed.consistent else 10 * OPENED) == 0:
            _open(figures, path, state, example)


def _peak(path: Path) -> int:
    """The peak memory of loading, in bytes."""
    tracemalloc.start()
    with contextlib.suppress(ValueError):
        sw.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _open(figures: Figures, path: Path, state: State, example: str) -> None:
    """Make an explorer of a state: it works, or raises an error and leaves nothing behind."""
    if json.loads(path.with_suffix(".json").read_bytes())["model"]["fingerprint"] is None:
        return  # without a fingerprint, loading would compute the map to compare the models
    widgets = set(registry._instances)
    try:
        sw.load(path, model=state.model, transform=state.transform).close()
        figures.counts["explorers"] += 1
    except (TypeError, ValueError) as error:
        figures.counts["explorers refused"] += 1
        if ": " not in str(error):
            figures.fault("raw error", f"{example}, opened: {type(error).__name__}: {str(error)[:200]}")
    except BaseException as error:
        figures.fault("raw error", f"{example}, opened: {type(error).__name__}: {str(error)[:200]}")
    if left := set(registry._instances) - widgets:
        figures.fault("explorer left open", f"{example}: {len(left)} widgets")


def _look_at(figures: Figures, state: State, changed: Changed, attribution: sw.Attribution, example: str) -> None:
    if is_same(attribution, state.attribution):
        figures.counts["the same map"] += 1
        return
    figures.counts["consistently changed map"] += 1
    if not changed.consistent:
        figures.fault("wrong map", example)
    try:
        use(attribution)
    except Exception as error:
        figures.fault("unusable map", f"{example}: {type(error).__name__}: {str(error)[:200]}")


def use(attribution: sw.Attribution) -> None:
    """Use an attribution in the usual ways, which its fields must allow."""
    repr(attribution)
    compile(attribution.to_code(), "code", "exec")
    json.loads(attribution.to_json())
    assert attribution.complete in (True, False)
    assert len(attribution.values) >= 0
    for name in attribution.parts:
        attribution.part(name)
    if attribution.columns is not None and tuple(attribution.values.shape) == attribution.input_shape:
        assert len(attribution.by_feature()) == len(attribution.values)


def stated(changed: Changed) -> int:
    """The size of both files and of the arrays that the JSON declares, in bytes."""
    size = len(changed.text) + len(changed.packed)
    try:
        arrays = json.loads(changed.text)["arrays"]
        size += sum(math.prod(map(operator.index, one["shape"])) * np.dtype(one["dtype"]).itemsize for one in arrays)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return min(size, 2**40)


def is_same(one: Any, other: Any) -> bool:
    """Whether two attributions, or values in them, are identical in their bits and types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        bits = one.dtype == other.dtype and one.shape == other.shape
        return bits and bool((one.contiguous().view(torch.uint8) == other.contiguous().view(torch.uint8)).all())
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, (pd.DataFrame, pd.Series)):
        return one.equals(other) and one.index.equals(other.index)
    if dataclasses.is_dataclass(one):
        names = (field.name for field in dataclasses.fields(one) if field.name != "encode")
        return all(is_same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, dict):
        return list(one) == list(other) and all(is_same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other))
    return one == other


# ---- good states


@functools.cache
def good_states() -> tuple[State, ...]:
    """States of several kinds."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(_saved(Path(folder) / "state", kind, explorer) for kind, explorer in _explorers())


def _saved(path: Path, kind: str, explorer: Any) -> State:
    explorer.save_state(path)
    text, packed = path.with_suffix(".json").read_bytes(), path.with_suffix(".npz").read_bytes()
    model, transform = explorer.arguments["model"], explorer.arguments["transform"]
    explorer.close()
    # For an image, the state stores the output of the transform.
    return State(kind, text, packed, sw.load(path), model, transform if explorer.kind == "table" else None)


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.rest = conv_net(), nn.Linear(3, 4).double()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.image(x) + self.rest(y)


def _explorers() -> Iterator[tuple[str, Any]]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)

    def tame(x: Any) -> torch.Tensor:
        return torch.from_numpy(np.asarray(x)).movedim(-1, 0).double() / 255

    common = {"executor": "inline", "transform": tame}
    names = ["ant", "猫", "</script>", "dog"]
    yield "image", Explorer(conv_net(), image, class_names=names, method="smoothgrad", n_samples=3, **common)
    yield "cam", Explorer(conv_net(), image, method="grad_cam", sign="signed", clip=(1, 97), **common)
    baseline = torch.rand(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    yield "own baseline", Explorer(conv_net(), image, baseline=baseline, n_steps=4, **common)
    yield (
        "index",
        Explorer(nn.Conv2d(3, 2, 3, padding=1).double(), image, target=(1, 2, 3), method="gradient", **common),
    )
    half = Explorer(conv_net().bfloat16(), image, executor="inline", method="gradient")
    yield "bfloat16", half
    inputs = {"x": torch.rand(1, 3, 8, 8, dtype=torch.float64), "y": torch.rand(1, 3, dtype=torch.float64)}
    yield "two inputs", Explorer(_Two().eval(), inputs, executor="inline", method="gradient")
    table = pd.DataFrame(
        {"a": rng.normal(size=9), "b": rng.integers(0, 5, 9), "w": rng.choice(["u", "v"], 9), "f": rng.random(9) < 0.5},
        index=[f"row {k}" for k in range(9)],
    )

    def numbers(rows: Any) -> np.ndarray:
        return np.stack([rows["a"], rows["b"], rows["w"] == "u", rows["f"]], 1).astype(float)

    row = {"background": table, "transform": numbers, "executor": "inline"}
    yield "row", Explorer(mlp(), table.iloc[[0]], class_names=["x", "y", "z"], n_steps=4, **row)
    yield "row's baseline", Explorer(mlp(), table.iloc[[1]], baseline=table.iloc[[3]], n_steps=4, **row)
    yield "numbers", Explorer(mlp(), rng.normal(size=4), feature_names=list("wxyz"), executor="inline", n_steps=4)


# ---- moves: bytes


def _flipped(rng: random.Random, content: bytes) -> bytes:
    """Change, delete, repeat or move some bytes."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 50])):
        at, size = rng.randrange(len(changed) + 1), rng.choice([1, 1, 2, 4, 100])
        kind = rng.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at : at + size] = rng.randbytes(size)
        elif kind == 2:
            del changed[at : at + size]
        elif kind == 3:
            changed[at:at] = changed[at : at + size]
        elif kind == 4 and rng.random() < 0.2:
            del changed[at:]
        else:
            there = rng.randrange(len(changed) + 1)
            changed[there : there + size] = changed[at : at + size]
    return bytes(changed)


def bytes_of_the_text(rng: random.Random, state: State) -> Changed:
    text = _flipped(rng, state.text)
    fixed = rng.random() < 0.5
    if fixed:
        try:
            text = _with_checksums(json.loads(text), state.packed)
        except (ValueError, RecursionError, AttributeError):
            fixed = False
    return Changed("bytes of the text", text, state.packed, fixed)


def bytes_of_the_arrays(rng: random.Random, state: State) -> Changed:
    packed = _flipped(rng, state.packed)
    if rng.random() < 0.5:
        return Changed("bytes of the arrays", state.text, packed, packed == state.packed)
    return Changed("bytes of the arrays", _with_checksums(json.loads(state.text), packed), packed, True)


def spaces(rng: random.Random, state: State) -> Changed:
    """Change only spaces and order: the state must load as the same map."""
    document = json.loads(state.text)
    entries = list(document.items())
    rng.shuffle(entries)
    indent = rng.choice([None, 0, 3, "\t"])
    text = json.dumps(dict(entries), indent=indent, ensure_ascii=rng.random() < 0.5).encode()
    return Changed("spaces", text, state.packed, False)


def another_pair(rng: random.Random, state: State) -> Changed:
    """The JSON of one state, the npz of another."""
    other = rng.choice([one for one in good_states() if one is not state])
    return Changed("another pair", state.text, other.packed, False)


def _with_checksums(document: Any, packed: bytes) -> bytes:
    """The JSON with updated checksums."""
    if isinstance(document, dict):
        document["npz"] = xxhash.xxh3_128_hexdigest(packed)
        document["checksum"] = None
        document["checksum"] = checksum(document)
    return json.dumps(document).encode()


# ---- moves: values of the JSON

EXTREME = (
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, 2**31, 2**63, 2**64, 10**18, 10**30, "", "x", "x" * 5000, "\0",
    "\ud800", "__class__", "values", "gradient", "mean", "ant", "cuda:99", [], {}, [[]], [0], {"tuple": []},
    {"tuple": [1, 2]}, {"mapping": []}, {"mapping": [[1, 2]]}, {"mapping": [[[], 2]]}, {"array": "values"},
    {"tensor": "values", "dtype": "float32"}, {"tensor": "inputs", "dtype": "float64"}, {"tensor": [], "dtype": {}},
    {"frame": [], "columns": [], "index": []}, {"frame": [[1]], "columns": ["a"], "index": [0]},
    {"series": [1], "name": "a", "index": [0]}, {"a": {"b": {"c": {}}}},
)  # fmt: skip


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    """All pairs (container, key) in a JSON document."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _entries(value[key])


def _deep(rng: random.Random, value: Any) -> Any:
    for _ in range(rng.choice([1, 2, 10, 50])):
        value = rng.choice([[value], {"a": value}, {"tuple": [value]}, {"mapping": [[1, value]]}])
    return value


def _delete(rng: random.Random, holder: Any, key: Any, _document: Any) -> None:
    del holder[key]


def _retype(rng: random.Random, holder: Any, key: Any, _document: Any) -> None:
    holder[key] = copy.deepcopy(rng.choice(EXTREME))


def _nest(rng: random.Random, holder: Any, key: Any, _document: Any) -> None:
    holder[key] = _deep(rng, holder[key])


def _swap(rng: random.Random, holder: Any, key: Any, document: Any) -> None:
    other, there = rng.choice(list(_entries(document)))
    value = copy.deepcopy(other[there])
    other[there] = copy.deepcopy(holder[key])
    holder[key] = value


def _rename(rng: random.Random, holder: Any, key: Any, document: Any) -> None:
    if isinstance(holder, dict):
        names = [name for other, name in _entries(document) if isinstance(name, str)]
        holder[rng.choice([*names, "x", "self", "__class__", "a b", "x" * 300])] = holder.pop(key)


def _repeat(rng: random.Random, holder: Any, key: Any, _document: Any) -> None:
    if isinstance(holder, list):
        holder[key:key] = [holder[key]] * rng.choice([1, 2, 1000])
    else:
        holder[f"{key}2"] = holder[key]


def _count(rng: random.Random, holder: Any, key: Any, _document: Any) -> None:
    """Change a number as a typing error would."""
    if isinstance(holder[key], (int, float)):
        holder[key] = rng.choice([holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 10, 10**9])


CHANGES: tuple[Callable[[random.Random, Any, Any, Any], None], ...] = (
    _delete, _retype, _retype, _nest, _swap, _rename, _repeat, _count,
)  # fmt: skip


def values_of_the_text(rng: random.Random, state: State) -> Changed:
    document = json.loads(state.text)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        entries = list(_entries(document))
        rng.choice(CHANGES)(rng, *rng.choice(entries), document)
    try:
        text = _with_checksums(document, state.packed)
    except ValueError:  # a lone surrogate can't be encoded
        text = json.dumps(document).encode()
    return Changed("values of the text", text, state.packed, True)


def depths(rng: random.Random, state: State) -> Changed:
    """Nest a value deeply, often deeper than Python's JSON parser allows."""
    document = json.loads(state.text)
    document[rng.choice(list(document))] = "HERE"
    begin, end = rng.choice([("[", "]"), ('{"a":', "}"), ('{"tuple":[', "]}"), ("[", ""), ("", "]")])
    times = rng.choice([100, 900, 1100, 10_000, 10**5])
    text = json.dumps(document).replace('"HERE"', f"{begin * times}1{end * times}")
    return Changed("depths", text.encode(), state.packed, False)


def twice(rng: random.Random, state: State) -> Changed:
    """Repeat a name in an object, with another value."""
    document = json.loads(state.text)
    name, other = rng.choice(list(document)), rng.choice(list(document))
    text = state.text.rstrip().removesuffix(b"}").rstrip()
    text += f", {json.dumps(name)}: {json.dumps(document[other])}}}".encode()
    return Changed("twice", text, state.packed, False)


# ---- moves: members of the npz


def members_of_the_arrays(rng: random.Random, state: State) -> Changed:
    """Repack the npz with changed members, and update the checksums."""
    with zipfile.ZipFile(io.BytesIO(state.packed)) as archive:
        members = [(one.filename, archive.read(one)) for one in archive.infolist()]
    document = json.loads(state.text)
    for _ in range(rng.choice([1, 1, 2])):
        _repack(rng, members, document)
    file = io.BytesIO()
    how = rng.choice([*[zipfile.ZIP_DEFLATED] * 6, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in members:
            archive.writestr(name, content)
    packed = file.getvalue()
    if rng.random() < 0.3:
        packed = _with_false_header(rng, packed)
    return Changed("members of the arrays", _with_checksums(document, packed), packed, True)


def _repack(rng: random.Random, members: list[tuple[str, bytes]], document: Any) -> None:
    if not members:
        return
    at, there = rng.randrange(len(members)), rng.randrange(len(members))
    name, content = members[at]
    entry = document["arrays"][min(at, len(document["arrays"]) - 1)]
    kind = rng.randrange(12)
    if kind == 0:
        members[at], members[there] = (name, members[there][1]), (members[there][0], content)
    elif kind == 1:
        members.append(members[at])
    elif kind == 2:
        del members[at]
    elif kind == 3:
        members[at] = rng.choice(["../x.npy", "9.npy", "0", "C:/0.npy"]), content
    elif kind == 4:
        members[at] = name, content[: rng.randrange(len(content) + 1)]
    elif kind == 5:
        members[at] = name, content + bytes(rng.choice([1, 100, 2**20]))
    elif kind == 6:
        members[at] = name, content[:128] + bytes(rng.choice([2**20, 2**23]))
    elif kind == 7:  # the JSON declares it correctly
        other = np.zeros(
            rng.choice([(), (0,), (1,), (2, 3), (1, 3, 8, 8)]), rng.choice(["<f4", "<f8", "|b1", "<U3", "<i8"])
        )
        members[at] = name, _npy(other)
        entry |= {"dtype": other.dtype.str, "shape": list(other.shape)}
    elif kind == 8:
        shape = rng.choice([[10**9], [2**20, 2**20], [0, 2**29], [-1], [1.5], [2**62] * 4, "x"])
        entry |= {"dtype": rng.choice(["<f4", "O", "|O8", "<f4,<f4", "V8", "x" * 999, "<M8[ns]"]), "shape": shape}
    elif kind > 9:  # other numbers of the same type and shape
        numbers = _flipped(rng, content[128:])
        members[at] = name, content[:128] + numbers[: len(content) - 128].ljust(len(content) - 128, b"\1")
    else:
        head = bytearray(content[:128])
        head[rng.randrange(len(head))] = rng.randrange(256)
        members[at] = name, bytes(head) + content[128:]


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def _with_false_header(rng: random.Random, packed: bytes) -> bytes:
    """Change a number in one of the headers of a zip file."""
    begins = [at for sign in (b"PK\1\2", b"PK\3\4", b"PK\5\6") for at in _positions(packed, sign)]
    changed, at = bytearray(packed), rng.choice(begins) + rng.randrange(4, 30)
    changed[at : at + 4] = rng.choice([0, 1, 2**16, 2**31, 2**32 - 1, rng.getrandbits(32)]).to_bytes(4, "little")
    return bytes(changed)


def _positions(content: bytes, sign: bytes) -> Iterator[int]:
    at = content.find(sign)
    while at >= 0:
        yield at
        at = content.find(sign, at + 1)


MOVES: tuple[Callable[[random.Random, State], Changed], ...] = (
    bytes_of_the_text, bytes_of_the_text, bytes_of_the_arrays, bytes_of_the_arrays, spaces, another_pair,
    values_of_the_text, values_of_the_text, values_of_the_text, values_of_the_text, twice, depths,
    members_of_the_arrays, members_of_the_arrays,
)  # fmt: skip
