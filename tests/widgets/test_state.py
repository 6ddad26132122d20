"""States in files: the numbers come back bit for bit, the controls where they stood, and what differs is said."""

from __future__ import annotations

import dataclasses
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from toys import conv_net, mlp

import saliency_widgets as sw
from saliency_widgets.widgets import Explorer, TableExplorer

NAMES = ["ant", "猫", "</script>", "dog"]


def tame(x):
    return torch.from_numpy(np.asarray(x)).movedim(-1, 0).double() / 255


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def explorer(picture):
    made = Explorer(
        conv_net(), picture, transform=tame, class_names=NAMES, executor="inline", method="smoothgrad", n_samples=3,
        noise_level=0.123, target=1, sign="signed", opacity=0.4, clip=(1, 97),
    )  # fmt: skip
    yield made
    made.close()


def assert_same(a, b):
    """Two attributions, field by field and bit by bit."""
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
def test_the_attribution_comes_back_bit_for_bit(explorer, tmp_path, ending):
    written = explorer.save_state(tmp_path / f"cat.v1{ending}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat.v1.json", "cat.v1.npz"]
    assert written == tmp_path / "cat.v1.json"
    found = sw.load(tmp_path / f"cat.v1{ending}")
    assert isinstance(found, sw.Attribution)
    assert_same(explorer.attribution, found)
    assert np.array_equal(found.saliency_map(), explorer.attribution.saliency_map())
    assert found.to_code() == explorer.attribution.to_code()
    again = sw.attribute(conv_net(), tame(np.asarray(explorer._given["inputs"])), **found.settings)
    assert torch.equal(again.values, found.values)


def test_the_json_says_what_it_is_of(explorer, tmp_path):
    told = json.loads(explorer.save_state(tmp_path / "a").read_text(encoding="utf-8"))
    assert told["saliency_widgets"] == sw.__version__
    assert (told["kind"], told["class"], told["model"]["class"]) == ("picture", "猫", "Sequential")
    assert len(told["model"]["fingerprint"]) == 32
    assert told["controls"]["noise_level"] == 0.123
    assert told["code"] == explorer.to_code()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        kept = dict(zip(told["arrays"], (arrays[str(k)] for k in range(len(told["arrays"]))), strict=True))
    assert np.array_equal(kept["values"], explorer.attribution.values.numpy())
    assert np.array_equal(kept["inputs"], tame(explorer._given["inputs"])[None].numpy())


def test_an_explorer_with_the_same_controls_and_the_same_map(explorer, picture, tmp_path):
    explorer.save_state(tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made = sw.load(tmp_path / "a", model=conv_net(), inputs=picture, transform=tame)
    assert isinstance(made, Explorer)
    assert made.controls == explorer.controls
    assert torch.equal(made.wait(60).values, explorer.attribution.values)
    assert made._subject.class_names == NAMES
    made.close()


def test_without_the_inputs_what_the_model_saw_is_explained_and_the_missing_transform_is_told(explorer, tmp_path):
    explorer.save_state(tmp_path / "a")
    with pytest.warns(UserWarning, match="went through a transform.*Pass inputs= and transform="):
        made = sw.load(tmp_path / "a", model=conv_net())
    assert torch.equal(made._subject.tensor, explorer._subject.tensor)
    assert made.controls == explorer.controls
    made.close()


def test_black_of_a_transform_that_is_missing_stays_the_same_numbers(picture, tmp_path):
    def centered(x):
        return tame(x) * 2 - 1

    there = Explorer(conv_net(), picture, transform=centered, executor="inline", n_steps=4)
    assert there.attribution.settings["baseline"] == "black"
    there.save_state(tmp_path / "a")
    with pytest.warns(UserWarning, match="black and white"):
        made = sw.load(tmp_path / "a", model=conv_net())
    assert torch.allclose(made.wait(60).values, there.attribution.values, rtol=1e-9)
    assert bool((made.attribution.settings["baseline"] == -1).all())
    made.close()
    there.close()


def test_loading_moves_the_controls_of_an_explorer(explorer, picture, tmp_path):
    explorer.save_state(tmp_path / "a")
    then, values = explorer.controls, explorer.attribution.values
    explorer.update(method="gradient", target=0, sign="absolute", opacity=1, colormap="viridis")
    assert explorer.controls != then
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        explorer.load_state(tmp_path / "a")
    assert explorer.controls == then
    assert torch.equal(explorer.attribution.values, values)


def test_another_model_and_another_input_are_told(explorer, picture, tmp_path):
    explorer.save_state(tmp_path / "a")
    with torch.no_grad():
        next(explorer._given["model"].parameters()).add_(1)
    with pytest.warns(UserWarning, match="the model is another: Sequential with other weights or code"):
        explorer.load_state(tmp_path / "a")
    picture[0, 0] = 255 - picture[0, 0]
    with pytest.warns(UserWarning, match="the inputs hold other numbers"):
        explorer.load_state(tmp_path / "a")
    with pytest.warns(UserWarning, match=r"had \(1, 3, 8, 8\)"):
        made = sw.load(tmp_path / "a", model=conv_net(), inputs=np.zeros((12, 12, 3), np.uint8), transform=tame)
    made.close()


class Told(nn.Module):
    """A model that can't be recognised on another day."""

    def __init__(self):
        super().__init__()
        self.net, self.generator = conv_net(), (number for number in ())

    def forward(self, x):
        return self.net(x)


def test_a_model_without_a_fingerprint_is_compared_by_its_map(picture, tmp_path):
    made = Explorer(Told(), picture, transform=tame, executor="inline", method="gradient")
    told = json.loads(made.save_state(tmp_path / "a").read_text())
    assert told["model"]["fingerprint"] is None
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made.load_state(tmp_path / "a")
    with torch.no_grad():
        made._given["model"].net[0].weight.mul_(2)
    with pytest.warns(UserWarning, match="its map is another"):
        made.load_state(tmp_path / "a")
    made.close()


def test_a_baseline_of_ones_own_is_stored(picture, tmp_path):
    baseline = torch.rand(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = Explorer(conv_net(), picture, transform=tame, executor="inline", baseline=baseline, n_steps=8)
    made.save_state(tmp_path / "a")
    found = sw.load(tmp_path / "a")
    assert torch.equal(found.settings["baseline"], baseline)
    assert_same(made.attribution, found)
    again = sw.load(tmp_path / "a", model=conv_net(), inputs=picture, transform=tame)
    assert torch.equal(again.wait(60).values, made.attribution.values)
    again.close()
    made.close()


def test_a_function_is_no_number_and_nothing_is_written(picture, tmp_path):
    made = Explorer(conv_net(), picture, transform=tame, executor="inline", target=lambda out: out[:, 0])
    with pytest.raises(TypeError, match=r"target: a function can't be stored.*nothing was written"):
        made.save_state(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    assert made.attribution is not None
    made.close()


def test_files_that_are_none_are_told(explorer, tmp_path):
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
        sw.load(tmp_path / "a", transform=tame)


# ---- rows of tables


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(20, 4)), columns=["a", "b", "c d", "e"])


@pytest.fixture
def row_explorer(table):
    made = TableExplorer(
        mlp(), table.iloc[[0]], background=table, class_names=NAMES[:3], executor="inline", n_steps=8, target=2
    )
    yield made
    made.close()


def test_a_rows_state_comes_back_with_its_features_and_edits(row_explorer, table, tmp_path):
    row_explorer.edit(**{"c d": 0.25})
    row_explorer.save_state(tmp_path / "a")
    found = sw.load(tmp_path / "a")
    assert_same(row_explorer.attribution, found)
    pd.testing.assert_frame_equal(found.by_feature(), row_explorer.attribution.by_feature())
    made = sw.load(tmp_path / "a", model=mlp())
    assert isinstance(made, TableExplorer)
    assert torch.equal(made.wait(60).values, row_explorer.attribution.values)
    assert made.row["c d"].item() == 0.25
    made.close()
    row_explorer.edit(**{"c d": -1.0, "a": 3.0})
    row_explorer.load_state(tmp_path / "a")
    assert row_explorer.row["c d"].item() == 0.25
    assert row_explorer.row["a"].item() == table["a"][0]
    assert torch.equal(row_explorer.attribution.values, found.values)


def test_a_row_is_no_picture(row_explorer, explorer, tmp_path):
    explorer.save_state(tmp_path / "a")
    with pytest.raises(ValueError, match="the state of a picture, and this explorer shows a row"):
        row_explorer.load_state(tmp_path / "a")


def test_a_page_of_bars_is_refused_with_the_ways_out(row_explorer, tmp_path):
    with pytest.raises(NotImplementedError, match=r"can't draw the bars.*save_state.*by_feature"):
        row_explorer.save_html(tmp_path / "a.html", record={"n_steps": [8]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("about", ["one logit", "an index"])
def test_targets_come_back_as_what_they_were(tmp_path, picture, about):
    torch.manual_seed(0)
    if about == "one logit":
        model, asked = nn.Sequential(conv_net(), nn.Linear(4, 1).double()), {"class_names": ["neg", "pos"], "target": 0}
    else:
        model, asked = nn.Conv2d(3, 2, 3, padding=1).double(), {"target": (1, 2, 3)}
    made = Explorer(model.eval(), picture, transform=tame, executor="inline", method="gradient", **asked)
    made.save_state(tmp_path / "state")
    assert_same(sw.load(tmp_path / "state"), made.attribution)
    again = sw.load(tmp_path / "state", model=model, inputs=picture, transform=tame)
    assert torch.equal(again.wait().values, made.attribution.values)
    assert again.attribution.settings["target"] == made.attribution.settings["target"]
    again.close()
    made.close()
