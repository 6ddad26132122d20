"""The explorer of an image and a text that are explained together."""

from contextlib import closing

import numpy as np
import pytest
import torch
from image_and_text import BOTH, VOCABULARY, Captioning, clip, pair

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.render.quantize import Quantized

OPTIONS = {"tokenizer": VOCABULARY, "explain": BOTH}


def explored(model=None, inputs=None, **settings):
    settings = {"executor": "inline", **OPTIONS, **settings}
    return sw.explore(model or clip(), inputs or pair(), **settings)


def values(view):
    """Return the values that a view shows."""
    frame = view.frame
    codes = np.frombuffer(frame["codes"], "<u2").reshape(frame["height"], frame["width"])
    return render.dequantize(Quantized(codes, frame["low"], frame["high"], frame["signed"]))


@pytest.mark.parametrize("sign", ["absolute", "signed", "negative"])
def test_each_view_shows_its_part_of_one_attribution(sign):
    with closing(explored(n_steps=4, sign=sign)) as explorer:
        result, picture, text = explorer.attribution, explorer.kind_view.picture, explorer.view
        image = result.part("pixel_values").reduced(explorer.panel.reduction).numpy()
        assert np.abs(values(picture) - image).max() <= np.abs(image).max() * 1e-4
        tokens = result.part("input_ids").by_token(sign=sign)["attribution"].to_numpy()
        assert np.abs(values(text)[0] - tokens).max() <= np.abs(tokens).max() * 1e-4
        assert np.abs(tokens).max() > 0
        assert text.scene["pieces"] == ["[CLS]", "the", "cat", "sat", "[SEP]"]
        assert picture.image.startswith(b"\x89PNG")


def test_both_follow_each_request():
    with closing(explored(method="gradient", executor="thread")) as explorer:
        explorer.wait()
        before = values(explorer.view), values(explorer.kind_view.picture)
        explorer.update(method="input_x_gradient", sign="signed")
        explorer.wait()
        views = explorer.view, explorer.kind_view.picture
        for view, old in zip(views, before, strict=True):
            assert view.frame["generation"] == explorer.session.generation
            assert view.frame["final"]
            assert view.frame["signed"]
            assert not np.array_equal(values(view), old)
        explorer.update(sign="positive")
        explorer.wait()
        assert not any(view.frame["signed"] for view in views)


def test_the_default_baseline_is_that_of_each_input():
    with closing(explored(n_steps=2)) as explorer:
        each = {"input_ids": "unknown", "pixel_values": "zero"}
        assert explorer.attribution.settings["baseline"] == each
        explorer.update(baseline="mean")
        assert explorer.attribution.settings["baseline"] == "mean"
        settings = {name: value for name, value in explorer.attribution.settings.items() if name != "tokenizer"}
        again = sw.attribute(clip(), pair(), tokenizer=VOCABULARY, **settings)
        assert torch.equal(again.values, explorer.attribution.values)


def test_the_code_reads_both_maps():
    with closing(explored(n_steps=2, sign="positive")) as explorer:
        code = explorer.to_code()
        assert "# The image: attribution.part('pixel_values').saliency_map(sign='positive', channels='max')" in code
        assert "# The text: attribution.part('input_ids').by_token(sign='positive')" in code
        names = {"model": clip(), "inputs": pair()}
        exec(code, names)
        assert torch.equal(names["attribution"].values, explorer.attribution.values)


def test_an_image_that_was_changed_in_place():
    inputs = pair()
    with closing(explored(inputs=inputs, method="gradient")) as explorer:
        before = explorer.kind_view.picture.image
        inputs["pixel_values"].mul_(0.5)
        explorer.update()
        assert explorer.view.status["state"] == "done"
        assert explorer.kind_view.picture.image != before
        fresh = sw.attribute(clip(), inputs, method="gradient", target=0, **OPTIONS)
        assert torch.equal(explorer.attribution.values, fresh.values)


def test_the_token_whose_score_is_explained():
    with closing(explored(Captioning(), method="gradient", target=(2, 6))) as explorer:
        assert explorer.view.scene["explained"] == 3  # position 2 scores the next token
        explorer.update(target=(1, 6))
        assert explorer.view.scene["explained"] == 2
        assert explorer.view.frame["generation"] == explorer.kind_view.picture.frame["generation"] == 2


def test_an_error_is_shown_once_and_both_maps_are_dimmed():
    model = clip()
    with closing(explored(model, method="gradient")) as explorer:
        with torch.no_grad():
            model.logit_scale.fill_(torch.nan)
        explorer.update()
        status, picture = explorer.view.status, explorer.kind_view.picture.status
        assert (status["state"], picture["state"]) == ("error", "error")
        assert status["dim"]
        assert picture["dim"]
        assert status["message"]
        assert not picture["message"]


def test_the_snapshot_has_the_image_and_the_tokens():
    with closing(explored(method="input_x_gradient", sign="signed")) as explorer:
        snapshot = explorer._snapshot()
        table = explorer.attribution.part("input_ids").by_token(sign="signed")
        pairs = [piece.rsplit(" ", 1) for piece in snapshot.lines[-1].split(", ")]
        assert [token for token, _ in pairs] == list(table["token"])
        assert np.allclose([float(value) for _, value in pairs], table["attribution"], atol=0.0051)
        assert snapshot.draw(1.0).width >= 480


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("pin", lambda explorer, _: explorer.pin()),
        ("save_png", lambda explorer, path: explorer.save_png(path / "a.png")),
        ("save_html", lambda explorer, path: explorer.save_html(path / "a.html")),
        ("page_size", lambda explorer, _: explorer.page_size()),
        ("save_state", lambda explorer, path: explorer.save_state(path / "a")),
        ("edit", lambda explorer, _: explorer.edit(text="the dog")),
        ("annotations", lambda explorer, _: explorer.annotations),
        ("row", lambda explorer, _: explorer.row),
    ],
)
def test_what_covers_one_input_says_so(name, call, tmp_path):
    with closing(explored(method="gradient")) as explorer:
        with pytest.raises(NotImplementedError, match=rf"{name}: it covers one input, .*'pixel_values'\] together"):
            call(explorer, tmp_path)
        assert not [*tmp_path.iterdir()]
        assert explorer.view.status["state"] == "done"


def test_methods_of_a_layer_explain_the_image_alone():
    with closing(explored(method="gradient")) as explorer:
        assert not {"grad_cam", "guided_grad_cam", "blur_ig"} & {*explorer.panel.menu}
    with pytest.raises(ValueError, match="method: Grad-CAM explains an image, not an image and a text together"):
        explored(method="grad_cam")


class Numbers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(len(VOCABULARY), 4, dtype=torch.float64)

    def forward(self, input_ids, size):
        return self.embedding(input_ids).mean(1) * size


@pytest.mark.parametrize(
    ("model", "inputs", "explain", "message"),
    [
        (Numbers(), {"input_ids": torch.tensor([[5, 6]]), "size": torch.rand(1, 4)}, ["input_ids", "size"], "no image"),
        (Captioning(), {name: torch.cat([one, one]) for name, one in pair().items()}, BOTH, "a batch of 2"),
    ],
)
def test_inputs_that_are_not_shown(model, inputs, explain, message):
    with pytest.raises(ValueError, match=message):
        explored(model, inputs, explain=explain)
