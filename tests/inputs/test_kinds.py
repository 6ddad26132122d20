"""Every kind of input: its baselines, maps and masks have matching shapes, types and ranges."""

import pandas as pd
import pytest
import torch
from toys import far, images, rows

from saliency_widgets.attribution import Reduction, baseline_of
from saliency_widgets.inputs import prepare, read_table
from saliency_widgets.inputs.prepared import prepare_table

TABLE = pd.DataFrame(rows(0, 20, 4).numpy(), columns=list("abcd"))


def table(background):
    return prepare_table(read_table(TABLE.iloc[[0]], background), device="cpu", dtype=torch.float64)


KINDS = {
    "image": lambda: prepare(images(0, 1, 3, 6, 8), dtype=torch.float64),
    "dark": lambda: prepare(images(0, 1, 3, 6, 8) * 9 - 5, dtype=torch.float64),
    "row": lambda: table(None),
    "row with a background": lambda: table(TABLE),
    "numbers": lambda: prepare(rows(0, 1, 5), dtype=torch.float64),
    "sequence": lambda: prepare(rows(0, 1, 7, 5), dtype=torch.float64, batched=True),
    "number": lambda: prepare(rows(0, 3, 1)[:, 0], dtype=torch.float64, batched=True),
}


@pytest.fixture(params=KINDS)
def prepared(request):
    return KINDS[request.param]()


def test_the_default_baseline_is_the_first_and_each_name_gives_a_new_tensor(prepared):
    inputs, kind = prepared.tensor, prepared.kind
    assert torch.equal(baseline_of(None, inputs, kind), baseline_of(next(iter(kind.baselines)), inputs, kind))
    before = inputs.clone()
    for name in kind.baselines:
        value = baseline_of(name, inputs, kind, seed=3)
        assert value.shape == inputs.shape
        assert value.dtype == inputs.dtype
        value.zero_()
        assert torch.equal(inputs, before), name
        assert torch.equal(baseline_of(name, inputs, kind, seed=3), baseline_of(name, inputs, kind, seed=3))
    missing = [name for name in ("black", "white", "mean", "median", "blur", "noise") if name not in kind.baselines]
    for name in missing:
        with pytest.raises(ValueError, match=r"^baseline: "):
            baseline_of(name, inputs, kind)


def test_maps_and_masks_have_the_shape_of_the_features(prepared):
    inputs, kind = prepared.tensor, prepared.kind
    shape = kind.shape_of(inputs)
    assert kind.reduce(inputs, Reduction(), inputs).shape[1:] == (shape or (1,))
    if shape:
        masks = torch.zeros(5, *shape, dtype=torch.bool)
        masks[2:] = True
        filled = torch.where(kind.broadcast(masks), torch.zeros_like(inputs[:1]), inputs[:1])
        assert filled.shape == (5, *inputs.shape[1:])
        assert torch.equal(filled[0], inputs[0])
        assert not filled[2:].any()
    assert kind.default_fill in {*kind.baselines}


def test_noise_has_the_range_of_the_input_or_its_background(prepared):
    inputs, kind = prepared.tensor, prepared.kind
    spread = kind.spread(inputs).expand_as(inputs)
    if kind.background is None:
        flat = inputs.reshape(len(inputs), -1)
        assert far(spread.reshape(len(inputs), -1)[:, 0], flat.amax(1) - flat.amin(1)) == 0
    else:
        assert far(spread[0], kind.background.amax(0) - kind.background.amin(0)) == 0
    drawn = baseline_of("noise", inputs, kind, seed=1)
    if kind.bounded:
        assert float(drawn.min()) >= 0
        assert float(drawn.max()) <= 1
    elif kind.background is not None:
        assert bool((drawn >= kind.background.amin(0)).all() & (drawn <= kind.background.amax(0)).all())


def test_only_images_are_drawn_and_only_tables_have_columns():
    kinds = {name: make().kind for name, make in KINDS.items()}
    assert {name for name, kind in kinds.items() if kind.drawn} == {"image", "dark"}
    assert {name for name, kind in kinds.items() if kind.columns is not None} == {"row", "row with a background"}
    assert {name: kind.name for name, kind in kinds.items()} == {
        "image": "image", "dark": "image", "row": "table", "row with a background": "table", "numbers": "numbers",
        "sequence": "numbers", "number": "numbers",
    }  # fmt: skip
