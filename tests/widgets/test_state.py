"""Saved states: maps and controls are restored exactly, differences are reported, and bad files are refused."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import threading
import tracemalloc
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
import xxhash
from ipywidgets.widgets import widget as registry
from torch import nn
from toys import conv_net, mlp

import saliency_widgets as sw
from saliency_widgets.api import io as state_io
from saliency_widgets.api.io import arrays, document, schema
from saliency_widgets.widgets import Explorer

NAMES = ["ant", "猫", "</script>", "dog"]


def to_tensor(x):
    return torch.from_numpy(np.asarray(x)).movedim(-1, 0).double() / 255


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def explorer(image):
    made = Explorer(
        conv_net(), image, transform=to_tensor, class_names=NAMES, executor="inline", method="smoothgrad", n_samples=3,
        noise_level=0.123, target=1, sign="signed", opacity=0.4, clip=(1, 97),
    )  # fmt: skip
    yield made
    made.close()


def assert_same(a, b):
    """Assert that two attributions are equal, field by field and bit by bit."""
    for field in dataclasses.fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        elif field.name == "settings":
            assert one.keys() == other.keys()
            for name, value in one.items():
                if isinstance(value, pd.DataFrame):
                    pd.testing.assert_frame_equal(value, other[name])
                    continue
                same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
                assert same, name
        elif field.name != "columns":
            assert one == other, field.name
            assert type(one) is type(other), field.name


@pytest.mark.parametrize("ending", ["", ".json", ".npz"])
def test_a_loaded_attribution_equals_the_saved_one_bit_for_bit(explorer, tmp_path, ending):
    written = explorer.save_state(tmp_path / f"cat.v1{ending}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat.v1.json", "cat.v1.npz"]
    assert written == tmp_path / "cat.v1.json"
    result = sw.load(tmp_path / f"cat.v1{ending}")
    assert isinstance(result, sw.Attribution)
    assert_same(explorer.attribution, result)
    assert np.array_equal(result.saliency_map(), explorer.attribution.saliency_map())
    assert result.to_code() == explorer.attribution.to_code()
    again = sw.attribute(conv_net(), to_tensor(np.asarray(explorer.arguments["inputs"])), **result.settings)
    assert torch.equal(again.values, result.values)


def test_the_json_describes_the_state(explorer, tmp_path):
    result = json.loads(explorer.save_state(tmp_path / "a").read_text(encoding="utf-8"))
    assert result["saliency_widgets"] == sw.__version__
    assert (result["kind"], result["class"], result["model"]["class"]) == ("image", "猫", "Sequential")
    assert len(result["model"]["fingerprint"]) == 32
    assert result["controls"]["noise_level"] == 0.123
    assert result["code"] == explorer.to_code()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        stored = {one["name"]: arrays[str(k)] for k, one in enumerate(result["arrays"])}
        assert len(arrays.files) == len(stored)
    assert [(one["dtype"], tuple(one["shape"])) for one in result["arrays"]] == [
        (array.dtype.str, array.shape) for array in stored.values()
    ]
    assert np.array_equal(stored["values"], explorer.attribution.values.numpy())
    assert np.array_equal(stored["inputs"], to_tensor(explorer.arguments["inputs"])[None].numpy())


def test_load_restores_an_explorer_with_its_controls_and_map(explorer, image, tmp_path):
    explorer.save_state(tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made = sw.load(tmp_path / "a", model=conv_net(), inputs=image, transform=to_tensor)
    assert isinstance(made, Explorer)
    assert made.controls == explorer.controls
    assert torch.equal(made.wait(60).values, explorer.attribution.values)
    assert made.problem.class_names == NAMES
    made.close()


def test_without_inputs_the_stored_tensor_is_explained_with_a_warning_about_the_transform(explorer, tmp_path):
    explorer.save_state(tmp_path / "a")
    with pytest.warns(UserWarning, match="was transformed.*Pass the original inputs= and transform="):
        made = sw.load(tmp_path / "a", model=conv_net())
    assert torch.equal(made.problem.tensor, explorer.problem.tensor)
    assert made.controls == explorer.controls
    made.close()


def test_a_black_baseline_keeps_its_values_without_the_transform(image, tmp_path):
    def centered(x):
        return to_tensor(x) * 2 - 1

    original = Explorer(conv_net(), image, transform=centered, executor="inline", n_steps=4)
    assert original.attribution.settings["baseline"] == "black"
    original.save_state(tmp_path / "a")
    with pytest.warns(UserWarning, match="black and white"):
        made = sw.load(tmp_path / "a", model=conv_net())
    assert torch.allclose(made.wait(60).values, original.attribution.values, rtol=1e-9)
    assert bool((made.attribution.settings["baseline"] == -1).all())
    made.close()
    original.close()


def test_load_state_restores_the_controls_and_the_map(explorer, image, tmp_path):
    explorer.save_state(tmp_path / "a")
    then, values = explorer.controls, explorer.attribution.values
    explorer.update(method="gradient", target=0, sign="absolute", opacity=1, colormap="viridis")
    assert explorer.controls != then
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        explorer.load_state(tmp_path / "a")
    assert explorer.controls == then
    assert torch.equal(explorer.attribution.values, values)


def test_a_different_model_or_input_is_a_warning(explorer, image, tmp_path):
    explorer.save_state(tmp_path / "a")
    with torch.no_grad():
        next(explorer.arguments["model"].parameters()).add_(1)
    with pytest.warns(UserWarning, match="the model differs: Sequential with different weights or code"):
        explorer.load_state(tmp_path / "a")
    image[0, 0] = 255 - image[0, 0]
    with pytest.warns(UserWarning, match="the model inputs have different values"):
        explorer.load_state(tmp_path / "a")
    with pytest.warns(UserWarning, match=r"instead of \(1, 3, 8, 8\)"):
        made = sw.load(tmp_path / "a", model=conv_net(), inputs=np.zeros((12, 12, 3), np.uint8), transform=to_tensor)
    made.close()


class WithoutFingerprint(nn.Module):
    """A model without a fingerprint, because it holds a generator."""

    def __init__(self):
        super().__init__()
        self.net, self.generator = conv_net(), (number for number in ())

    def forward(self, x):
        return self.net(x)


def test_a_model_without_a_fingerprint_is_compared_by_its_map(image, tmp_path):
    made = Explorer(WithoutFingerprint(), image, transform=to_tensor, executor="inline", method="gradient")
    result = json.loads(made.save_state(tmp_path / "a").read_text())
    assert result["model"]["fingerprint"] is None
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made.load_state(tmp_path / "a")
    with torch.no_grad():
        made.arguments["model"].net[0].weight.mul_(2)
    with pytest.warns(UserWarning, match="the map differs"):
        made.load_state(tmp_path / "a")
    made.close()


def test_a_custom_baseline_is_stored(image, tmp_path):
    baseline = torch.rand(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = Explorer(conv_net(), image, transform=to_tensor, executor="inline", baseline=baseline, n_steps=8)
    made.save_state(tmp_path / "a")
    result = sw.load(tmp_path / "a")
    assert torch.equal(result.settings["baseline"], baseline)
    assert_same(made.attribution, result)
    again = sw.load(tmp_path / "a", model=conv_net(), inputs=image, transform=to_tensor)
    assert torch.equal(again.wait(60).values, made.attribution.values)
    again.close()
    made.close()


def test_a_function_can_not_be_stored_and_nothing_is_written(image, tmp_path):
    made = Explorer(conv_net(), image, transform=to_tensor, executor="inline", target=lambda out: out[:, 0])
    with pytest.raises(TypeError, match=r"target: a function can't be stored.*Nothing was written"):
        made.save_state(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    assert made.attribution is not None
    made.close()


def test_missing_mixed_up_and_foreign_files_are_errors(explorer, tmp_path):
    explorer.save_state(tmp_path / "a")
    explorer.update(n_samples=2)
    explorer.save_state(tmp_path / "b")
    with pytest.raises(FileNotFoundError, match=r"c\.json"):
        sw.load(tmp_path / "c")
    (tmp_path / "b.npz").replace(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.npz is not the one that a\.json was written with"):
        sw.load(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match=r"b\.npz"):
        sw.load(tmp_path / "b")
    (tmp_path / "a.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="was not written by save_state"):
        sw.load(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        explorer.save_state(tmp_path / "nowhere" / "a")
    before = explorer.controls
    with pytest.raises(ValueError, match="was not written by save_state"):
        explorer.load_state(tmp_path / "a")
    assert explorer.controls == before


def test_arguments_for_an_explorer_need_a_model(explorer, tmp_path):
    explorer.save_state(tmp_path / "a")
    with pytest.raises(TypeError, match="pass the model too"):
        sw.load(tmp_path / "a", transform=to_tensor)


# ---- existing files


def test_saving_to_links_replaces_their_targets_and_keeps_the_mode(explorer, tmp_path):
    (tmp_path / "there").mkdir()
    explorer.save_state(tmp_path / "there" / "a")
    for ending in ("json", "npz"):
        (tmp_path / "there" / f"a.{ending}").chmod(0o600)
        (tmp_path / f"link.{ending}").symlink_to(f"there/a.{ending}")
    explorer.update(n_samples=2)
    explorer.save_state(tmp_path / "link")
    assert_same(sw.load(tmp_path / "there" / "a"), explorer.attribution)
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["a.json", "a.npz"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "there").iterdir())
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "link.npz").is_symlink()


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("failing", [".npz", ".json"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_state_that_can_not_be_written_leaves_the_old_one(explorer, tmp_path, monkeypatch, existing, failing, error):
    if existing:
        explorer.save_state(tmp_path / "a")
    before, old = sorted(tmp_path.iterdir()), explorer.attribution
    explorer.update(n_samples=2)
    put = state_io.put

    def fail(path, content):
        if path.suffix == failing:
            raise error
        return put(path, content)

    monkeypatch.setattr(state_io, "put", fail)
    with pytest.raises(type(error)):
        explorer.save_state(tmp_path / "a")
    assert sorted(tmp_path.iterdir()) == before
    if existing:
        assert_same(sw.load(tmp_path / "a"), old)


def copy_before_json(monkeypatch, folder, copied):
    """Copy the folder just before the JSON is written, as left by a process that is killed between both files."""
    put = state_io.put

    def copying(path, content):
        if path.suffix == ".json":
            shutil.copytree(folder, copied)
        return put(path, content)

    monkeypatch.setattr(state_io, "put", copying)


@pytest.mark.parametrize("links", [True, False])
def test_a_process_killed_between_both_files_leaves_the_old_state(explorer, tmp_path, monkeypatch, links):
    explorer.save_state(tmp_path / "a")
    old, killed = explorer.attribution, tmp_path / "killed"
    put = state_io.put
    if not links:
        monkeypatch.delattr(os, "link")
        monkeypatch.setattr(
            os, "link", lambda *_arguments: (_ for _ in ()).throw(OSError("no links here")), raising=False
        )

    copy_before_json(monkeypatch, tmp_path, killed)
    explorer.update(n_samples=2)
    explorer.save_state(tmp_path / "a")
    assert_same(sw.load(killed / "a"), old)
    assert_same(sw.load(tmp_path / "a"), explorer.attribution)
    monkeypatch.setattr(state_io, "put", put)
    explorer.update(n_samples=4)
    explorer.save_state(killed / "a")  # the next save works
    assert_same(sw.load(killed / "a"), explorer.attribution)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (None, TypeError, "expected a path"),
        (5, TypeError, "expected a path"),
        ("", ValueError, "expected a path"),
        (".", IsADirectoryError, "is a folder"),
        ("..", IsADirectoryError, "is a folder"),
        ("x" * 300, OSError, "File name too long|there is no file"),
    ],
)
def test_an_invalid_path_is_an_error_before_anything_is_computed(explorer, tmp_path, monkeypatch, path, error, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Explorer, "wait", lambda *_arguments: pytest.fail("it waited"))
    for call in (explorer.save_state, explorer.load_state, sw.load):
        with pytest.raises(error, match=f"^path: .*({message})"):
            call(path)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_could_not_be_loaded_is_not_written(image, tmp_path, monkeypatch):
    made = Explorer(conv_net(), image, transform=to_tensor, executor="inline", class_names=["\ud800", "b", "c", "d"])
    with pytest.raises(ValueError, match=r"nothing was written: a string contains the unpaired surrogate"):
        made.save_state(tmp_path / "a")
    made.problem.class_names = NAMES
    for module, limit, message in (
        (arrays, "LARGEST", "arrays: they hold"),
        (document, "MANY", "its JSON \\(.* bytes\\) exceeds"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, limit, 100)
            with pytest.raises(ValueError, match=f"nothing was written: {message}"):
                made.save_state(tmp_path / "a")
    made.close()
    assert list(tmp_path.iterdir()) == []


# ---- changed and damaged files


def rewrite(path, change=lambda _fields: None, packed=None):
    """Change a state like someone who knows the format, with the digest and the checksum updated."""
    text, npz = path.with_suffix(".json"), path.with_suffix(".npz")
    fields = json.loads(text.read_text())
    if packed is not None:
        npz.write_bytes(packed)
        fields["npz"] = xxhash.xxh3_128_hexdigest(packed)
    change(fields)
    fields["checksum"] = document.checksum(fields)
    text.write_text(json.dumps(fields))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """The path of a saved state that tests copy."""
    path = tmp_path_factory.mktemp("state") / "a"
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    made = Explorer(
        conv_net(), image, transform=to_tensor, class_names=NAMES, executor="inline", method="smoothgrad", n_samples=3
    )
    made.save_state(path)
    made.close()
    return path


@pytest.fixture
def good(pristine, tmp_path):
    for ending in (".json", ".npz"):
        shutil.copy(pristine.with_suffix(ending), tmp_path)
    return tmp_path / "a"


def assert_refused(path, message="", **value):
    with pytest.raises(ValueError, match=rf"^path: .*{message}") as caught:
        sw.load(path, **value)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_a_rewritten_state_without_a_change_is_equal(good):
    before = sw.load(good)
    rewrite(good)
    assert_same(sw.load(good), before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not written by save_state"),
        (b"[]", "not written by save_state"),
        (b"null", "not written by save_state"),
        (b"\x00\x01", "not written by save_state"),
        (b'{"a":"\xff"}', "not written by save_state"),
        (b'{"format":NaN}', "NaN is not a number"),
        (b'{"format":1e999}', "1e999 is not a number"),
        (b'{"format":2,"format":2}', "a name is repeated"),
        (b'{"format":' + b"9" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"format":true}', "not written by save_state"),
        (b'{"format":"2"}', "not written by save_state"),
        (b'{"format":99}', "a newer saliency_widgets"),
        (b'{"format":1}', "an older saliency_widgets"),
        (b'{"format":2}', "changed or damaged"),
        (b"[" * 200_000 + b"]" * 200_000, "exceeds the limits for a state"),
        (b'{"a":' * 90_000 + b"1" + b"}" * 90_000, "recursion"),
        (b"[" + b"1," * 2**20 + b"1]", "exceeds the limits for a state"),
        (b" " * (document.LARGEST_TEXT + 1), "the limit of .* bytes for a state"),
    ],
    ids=range(18),
)
def test_an_invalid_json_file_is_one_clear_error(good, content, message):
    good.with_suffix(".json").write_bytes(content)
    assert_refused(good, message)


def test_a_byte_order_mark_is_refused_and_spaces_are_ignored(good):
    text, before = good.with_suffix(".json"), sw.load(good)
    content = text.read_bytes()
    text.write_bytes(json.dumps(json.loads(content), separators=(",", ":")).encode())
    assert_same(sw.load(good), before)
    text.write_bytes(b"\xef\xbb\xbf" + content)
    assert_refused(good, "BOM")


def test_values_that_are_nested_too_deeply_are_refused(good):
    def nest(fields):
        for _ in range(50):
            fields["code"] = [fields["code"]]

    rewrite(good, nest)
    assert_refused(good, "nested too deeply")


@pytest.mark.parametrize(
    "change", [lambda fields: fields.update(code="x"), lambda fields: fields["controls"].update(n_samples=4)]
)
def test_a_changed_json_file_is_refused(good, change):
    fields = json.loads(good.with_suffix(".json").read_text())
    change(fields)
    good.with_suffix(".json").write_text(json.dumps(fields))
    assert_refused(good, "changed or damaged since save_state wrote it")


WRONG = [None, True, -1, 0.5, 10**19, "x", "__builtins__", [], {}, [1], {"tuple": 5}, {"tuple": [-1]}, {"mapping": [1]},
         {"mapping": [[[1], 2]]}, {"mapping": [["a", 1], ["a", 2]]}, {"tensor": "score", "dtype": "float64"},
         {"tensor": "values", "dtype": "float64"}, {"tensor": "values", "dtype": "__builtins__"}, {"array": "zzz"},
         {"frame": [], "columns": [], "index": [1, 2]}, {"series": 5, "name": None, "index": []}]  # fmt: skip
# Combinations that are valid nevertheless.
VALID = {
    *((name, repr(text)) for name in ("saliency_widgets", "saved", "class", "code", "unit", "layer")
      for text in ("x", "__builtins__")),
    ("class", "None"), ("class_names", "None"), ("transformed", "True"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "inside"), [(schema.STATE, ()), (schema.ATTRIBUTION, ("attribution",))], ids=["state", "attribution"]
)
def test_a_field_with_an_invalid_value_is_refused(good, rules, inside):
    text = good.with_suffix(".json").read_text()
    for name in rules:
        for wrong in WRONG:
            good.with_suffix(".json").write_text(text)
            same = []

            def change(fields, name=name, wrong=wrong, same=same):
                for one in inside:
                    fields = fields[one]
                same.append(fields.get(name) == wrong)  # only states of texts have all fields
                fields[name] = wrong

            rewrite(good, change)
            if same == [True] or (name, repr(wrong)) in VALID:
                assert isinstance(sw.load(good), sw.Attribution)
            else:
                assert_refused(good)


@pytest.mark.parametrize("where", ["", "attribution", "controls", "settings"])
def test_a_field_that_is_missing_or_unknown_is_named(good, where):
    text = good.with_suffix(".json").read_text()

    def inside(fields):
        return {"": fields, "controls": fields["controls"], "attribution": fields["attribution"],
                "settings": fields["attribution"]["settings"]}[where]  # fmt: skip

    rewrite(good, lambda fields: inside(fields).update(evil=1))
    assert_refused(good, "evil")
    for name in inside(json.loads(text)):
        if name not in ("arrays", "npz", "checksum", "format") and (where in ("", "attribution") or name == "method"):
            good.with_suffix(".json").write_text(text)
            rewrite(good, lambda fields, name=name: inside(fields).pop(name))
            assert_refused(good, name if name != "settings" else "values by name")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(input_shape={"tuple": [1, 3, 8, 9]}), "values: must have the inputs' shape"),
        (lambda a: a.update(input_shape={"tuple": []}), "input_shape: must begin"),
        (lambda a: a.update(parts={"mapping": [["a", {"tuple": [3]}]]}), "parts: their sizes must add up"),
        (lambda a: a.update(evaluations=-1), "evaluations: expected a non-negative integer, got -1"),
        (lambda a: a.update(default_sign="up"), "sign: 'up' is not known"),
        (lambda a: a["settings"].update(method="magic"), "'magic' is not known"),
        (lambda a: a["settings"].update(score="odds"), "'odds' is not known"),
        (lambda a: a["settings"].update(target="ant"), "settings/target: expected a class, or an index"),
        (lambda a: a["settings"].update(target=4), "there are 4 classes, got 4"),
        (lambda a: a["settings"].update(n_samples=10**9), "n_samples: expected a number from 1 to"),
        (lambda a: a["settings"].update(n_steps=4), "smoothgrad has no parameter 'n_steps'"),
        (lambda a: a["settings"].update(method="captum.No Class"), "method"),
        (lambda a: a["settings"].update({"x)\nimport os\n(": 1}), "has no parameter"),
        (lambda a: a.update(score={"array": "score"}), "score: expected a number for each sample"),
    ],
)
def test_an_inconsistent_attribution_is_refused(good, change, message):
    rewrite(good, lambda fields: change(fields["attribution"]))
    assert_refused(good, message)


# ---- arrays that differ from their declaration


def npz(members, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def members_of(path):
    with zipfile.ZipFile(path.with_suffix(".npz")) as archive:
        return [(member.filename, archive.read(member)) for member in archive.infolist()]


def npy(array, **value):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **value)
    return file.getvalue()


REPACKED = {
    "swapped": lambda members: [(members[0][0], members[1][1]), (members[1][0], members[0][1]), *members[2:]],
    "reordered": lambda members: members[::-1],
    "duplicate": lambda members: [members[0], *members],
    "too many": lambda members: [*members, ("9.npy", members[0][1])],
    "too few": lambda members: members[:-1],
    "renamed": lambda members: [("../" + members[0][0], members[0][1]), *members[1:]],
    "no array": lambda members: [(name, b"hello") for name, _ in members],
    "objects": lambda members: [(name, npy(np.array([{}], dtype=object), allow_pickle=True)) for name, _ in members],
    "records": lambda members: [(name, npy(np.zeros(3, [("a", "f4"), ("b", "i4")]))) for name, _ in members],
    "other shape": lambda members: [(name, npy(np.zeros(192).reshape(192, 1))) for name, _ in members],
    "other dtype": lambda members: [(name, npy(np.zeros((1, 3, 8, 8), ">f8"))) for name, _ in members],
    "Fortran order": lambda members: [(name, npy(np.asfortranarray(np.zeros((1, 3, 8, 8))))) for name, _ in members],
    "shorter": lambda members: [(name, content[:-1]) for name, content in members],
    "longer": lambda members: [(name, content + b"1") for name, content in members],
    "giant shape": lambda members: [(n, c.replace(b"(1, 3, 8, 8), }  ", b"(10000, 10000), }")) for n, c in members],
    "code": lambda members: [(n, c[:10] + b"__import__('os').abort()".ljust(len(c) - 10)) for n, c in members],
}


@pytest.mark.parametrize("name", REPACKED)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_arrays_that_differ_from_their_declaration_are_refused(good, name, compression):
    rewrite(good, packed=npz(REPACKED[name](members_of(good)), compression))
    assert_refused(good, "arrays: ")


@pytest.mark.parametrize("packed", [b"", b"PK", bytes(1000)])
def test_an_invalid_npz_file_is_refused(good, packed):
    rewrite(good, packed=packed)
    assert_refused(good, "zip file")


def test_an_invalid_boolean_is_refused(good):
    members = members_of(good)
    content = npy(np.zeros((1, 3, 8, 8), bool))
    members[0] = (members[0][0], content[:-1] + b"\2")

    def change(fields):
        fields["arrays"][0]["dtype"] = "|b1"

    rewrite(good, change, npz(members))
    assert_refused(good, "not booleans")


def peak_of(path):
    """Return the peak memory, in bytes, of refusing a state."""
    tracemalloc.start()
    try:
        assert_refused(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("lie", ["the JSON", "the npz", "none"])
def test_a_decompression_bomb_is_refused_without_allocating_its_memory(good, lie):
    """64 MiB of zeros in 64 kB, declared as less in the JSON, as less in the npz too, or as 1.6 GB in the JSON."""
    members = members_of(good)
    head = members[0][1][:128]
    packed = npz([(members[0][0], head + bytes(2**26)), *members[1:]])
    if lie == "the npz":
        packed = packed.replace((128 + 2**26).to_bytes(4, "little"), len(members[0][1]).to_bytes(4, "little"))
    rewrite(good, lambda fields: fields["arrays"][0].update(shape=[2 * 10**8]) if lie == "none" else None, packed)
    assert peak_of(good) < 2**22


def test_a_million_zip_entries_are_refused_without_allocating_their_memory(good):
    """A million directory entries, for each of which zipfile would create an object, within the declared size."""
    entry = npz([("0.npy", b"")])
    begin = entry.index(b"PK\1\2")
    end = entry.index(b"PK\5\6")
    rewrite(
        good,
        lambda fields: fields["arrays"][0].update(shape=[2**26]),
        entry[:begin] + entry[begin:end] * 10**6 + entry[end:],
    )
    assert peak_of(good) < 3 * good.with_suffix(".npz").stat().st_size


def test_an_array_can_be_used_only_once(good):
    """Otherwise a small file could expand to many copies of one array."""
    rewrite(good, lambda fields: fields["attribution"].update(standard_error=fields["attribution"]["values"]))
    assert_refused(good, "used twice|no value refers to")


def test_a_copy_that_was_set_aside_is_not_used_if_its_content_differs(good):
    """A copy that was set aside is named by its digest, and its content must match."""
    digest = json.loads(good.with_suffix(".json").read_text())["npz"]
    packed = good.with_suffix(".npz")
    state_io._aside(packed, digest).write_bytes(packed.read_bytes()[:-1] + b"1")
    packed.write_bytes(b"another")
    assert_refused(good, "is not the one that")


@pytest.mark.parametrize("digest", ["../" * 10 + "etc/passwd", "a" * 31, 5, None, []])
def test_an_invalid_digest_is_refused(good, digest):
    rewrite(good, lambda fields: fields.update(npz=digest))
    assert_refused(good, "npz: expected a digest")


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_a_pipe_counts_as_a_missing_file(good, ending):
    path = good.with_suffix(ending)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileNotFoundError, match=rf"^path: there is no file .*a\{ending}"):
        sw.load(good)


# ---- invalid controls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "zzz"}, "method: 'zzz' is not known"),
        ({"method": 5}, "controls/method: expected the name of a method"),
        ({"n_samples": 10**9}, "n_samples: expected a number"),
        ({"device": "cuda:99"}, "smoothgrad has no parameter 'device'"),
        ({"executor": "os.system"}, "executor"),
        ({"transform": "x"}, "transform"),
        ({"self": 1}, "self"),
        ({"sign": "up"}, "sign: 'up' is not known"),
        ({"opacity": 7}, "opacity"),
        ({"clip": {"tuple": [5]}}, "clip: expected a pair"),
        ({"target": "x" * 10**6}, "controls/target"),
        ({"score": "x" * 10**6}, "controls/score"),
        ({"target": 3, "score": None}, "controls/score"),
    ],
)
def test_invalid_controls_are_refused_and_leave_nothing_open(good, change, message):
    rewrite(good, lambda fields: fields["controls"].update(change))
    threads, widgets = set(threading.enumerate()), set(registry._instances)
    model = conv_net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_refused(good, message)
        assert_refused(good, message, model=model)
    assert set(threading.enumerate()) <= threads
    assert set(registry._instances) <= widgets


@pytest.mark.parametrize(
    ("change", "message"),
    [({"target": 3000}, "out of range"), ({"method": "grad_cam", "layer": "zzz"}, "layer: 'zzz'")],
)
def test_controls_that_do_not_fit_the_model_are_refused_and_leave_nothing_open(good, change, message):
    def change_controls(fields):
        fields["controls"] = {name: fields["controls"][name] for name in ("method", "target", "score")} | change

    rewrite(good, change_controls)
    threads, widgets = set(threading.enumerate()), set(registry._instances)
    with pytest.raises(ValueError, match=message), pytest.warns(UserWarning, match="was transformed"):
        sw.load(good, model=conv_net())
    assert set(threading.enumerate()) <= threads
    assert set(registry._instances) <= widgets


def test_a_warning_raised_as_an_error_leaves_nothing_open(good, image):
    threads, widgets = set(threading.enumerate()), set(registry._instances)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match="the model differs"):
            sw.load(good, model=conv_net(1), inputs=image, transform=to_tensor)
    assert set(threading.enumerate()) <= threads
    assert set(registry._instances) <= widgets


# ---- rows of tables


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(20, 4)), columns=["a", "b", "c d", "e"])


@pytest.fixture
def row_explorer(table):
    made = Explorer(
        mlp(), table.iloc[[0]], background=table, class_names=NAMES[:3], executor="inline", n_steps=8, target=2
    )
    yield made
    made.close()


def test_a_row_is_restored_with_its_features_and_edits(row_explorer, table, tmp_path):
    row_explorer.edit(**{"c d": 0.25})
    row_explorer.save_state(tmp_path / "a")
    result = sw.load(tmp_path / "a")
    assert_same(row_explorer.attribution, result)
    pd.testing.assert_frame_equal(result.by_feature(), row_explorer.attribution.by_feature())
    made = sw.load(tmp_path / "a", model=mlp())
    assert made.kind == "table"
    assert torch.equal(made.wait(60).values, row_explorer.attribution.values)
    assert made.row["c d"].item() == 0.25
    made.close()
    row_explorer.edit(**{"c d": -1.0, "a": 3.0})
    row_explorer.load_state(tmp_path / "a")
    assert row_explorer.row["c d"].item() == 0.25
    assert row_explorer.row["a"].item() == table["a"][0]
    assert torch.equal(row_explorer.attribution.values, result.values)


def test_a_background_with_strings_booleans_and_dates_is_restored(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "n": rng.normal(size=6),
            "word": ["u", "v", "ö", "v", "u", "u"],
            "whole": np.arange(6, dtype=np.int32),
            "flag": [True, False] * 3,
            "day": pd.date_range("2020-01-01", periods=6),
        },
        index=[f"row {k}" for k in range(6)],
    )

    def numbers(rows):
        words = pd.DataFrame(rows)["word"].map({"u": 0.0, "v": 1.0, "ö": 2.0})
        return np.stack([rows["n"], words, rows["whole"], rows["flag"]], 1).astype(float)

    made = Explorer(mlp(), table.iloc[[0]], background=table, transform=numbers, executor="inline", n_steps=4)
    made.save_state(tmp_path / "a")
    loaded = sw.load(tmp_path / "a")
    pd.testing.assert_frame_equal(loaded.settings["background"], table, check_freq=False)
    pd.testing.assert_frame_equal(loaded.by_feature(), made.attribution.by_feature())
    again = sw.load(tmp_path / "a", model=mlp(), transform=numbers)
    assert torch.equal(again.wait(60).values, made.attribution.values)
    again.close()
    made.close()


def test_a_row_is_unchanged_if_the_controls_are_refused(row_explorer, table, tmp_path):
    other = Explorer(
        mlp(), table.iloc[[1]], background=table, class_names=NAMES[:3], executor="inline", methods="captum.Saliency",
        method="captum.Saliency",
    )  # fmt: skip
    other.save_state(tmp_path / "a")
    other.close()
    row, controls = row_explorer.row, row_explorer.controls
    with pytest.raises(ValueError, match="method"):
        row_explorer.load_state(tmp_path / "a")
    pd.testing.assert_frame_equal(row_explorer.row, row)
    assert row_explorer.controls == controls


def test_a_row_explorer_refuses_the_state_of_an_image(row_explorer, explorer, tmp_path):
    explorer.save_state(tmp_path / "a")
    with pytest.raises(ValueError, match="kind 'table', got 'image'"):
        row_explorer.load_state(tmp_path / "a")


def test_a_page_of_bars_is_refused_with_alternatives(row_explorer, tmp_path):
    with pytest.raises(NotImplementedError, match=r"bars can't be drawn.*save_state.*by_feature"):
        row_explorer.save_html(tmp_path / "a.html", record={"n_steps": [8]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("about", ["one logit", "an index"])
def test_targets_are_restored(tmp_path, image, about):
    torch.manual_seed(0)
    if about == "one logit":
        model, requested = (
            nn.Sequential(conv_net(), nn.Linear(4, 1).double()),
            {"class_names": ["neg", "pos"], "target": 0},
        )
    else:
        model, requested = nn.Conv2d(3, 2, 3, padding=1).double(), {"target": (1, 2, 3)}
    made = Explorer(model.eval(), image, transform=to_tensor, executor="inline", method="gradient", **requested)
    made.save_state(tmp_path / "state")
    assert_same(sw.load(tmp_path / "state"), made.attribution)
    again = sw.load(tmp_path / "state", model=model, inputs=image, transform=to_tensor)
    assert torch.equal(again.wait().values, made.attribution.values)
    assert again.attribution.settings["target"] == made.attribution.settings["target"]
    again.close()
    made.close()


def test_a_state_can_be_saved_by_two_threads_at_the_same_time(image, tmp_path, monkeypatch):
    made = Explorer(conv_net(), image, transform=to_tensor, executor="inline")
    made.save_state(tmp_path / "state")
    link = os.link

    def link_twice(source, aside):
        """Link twice, as if another thread had set aside the same file."""
        link(source, aside)
        link(source, aside)

    monkeypatch.setattr(os, "link", link_twice)
    made.save_state(tmp_path / "state")
    assert torch.equal(sw.load(tmp_path / "state").values, made.wait(60).values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.npz"]
    made.close()


def test_a_copy_that_was_set_aside_is_not_used_for_another_state_with_equal_arrays(explorer, tmp_path, monkeypatch):
    explorer.save_state(tmp_path / "a")
    explorer.save_state(tmp_path / "b")
    old, killed, put = explorer.attribution, tmp_path / "killed", state_io.put

    copy_before_json(monkeypatch, tmp_path, killed)
    explorer.update(n_samples=2)
    explorer.save_state(tmp_path / "a")
    monkeypatch.setattr(state_io, "put", put)
    explorer.save_state(killed / "b")
    assert_same(sw.load(killed / "a"), old)
    assert_same(sw.load(killed / "b"), explorer.attribution)


def test_concurrent_saves_to_one_path_leave_one_complete_state(image, tmp_path):
    saving = [Explorer(conv_net(), image, transform=to_tensor, executor="inline", target=k % 4) for k in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            list(pool.map(lambda made: made.save_state(tmp_path / "state"), saving))
            loaded = sw.load(tmp_path / "state")
            assert any(torch.equal(loaded.values, made.attribution.values) for made in saving)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.npz"]
    for made in saving:
        made.close()


def test_two_links_to_one_file_are_refused(explorer, tmp_path):
    (tmp_path / "one").write_bytes(b"what was there before")
    for ending in (".json", ".npz"):
        (tmp_path / f"state{ending}").symlink_to("one")
    with pytest.raises(ValueError, match=r"^path: state.json and state.npz are the same file"):
        explorer.save_state(tmp_path / "state")
    assert (tmp_path / "one").read_bytes() == b"what was there before"
