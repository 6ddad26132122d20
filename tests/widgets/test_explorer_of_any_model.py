"""The explorer of various models: check-up, several inputs, layers, little memory, class names and captum methods."""

import numpy as np
import pytest
import torch
from torch import nn
from toys import Tally, conv_net, images, mlp, rows

import saliency_widgets as sw
from saliency_widgets.widgets import Explorer

X = images(0, 1, 3, 16, 16).float()


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Hide the GPU, as the check-up has an additional finding on a machine with a GPU if the model is on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def net():
    return conv_net().float()


def explorer(model=None, inputs=X, **settings):
    return Explorer(net() if model is None else model, inputs, executor="inline", **{"method": "gradient", **settings})


def test_a_healthy_model_is_checked_and_has_no_findings():
    made = explorer()
    assert made.view.checked
    assert made.view.findings == []
    made.close()


def test_findings_name_methods_by_their_titles():
    model = nn.Sequential(*conv_net(activation=nn.GELU)).float().eval()
    made = explorer(model)
    finding, other = made.view.findings
    assert "Grad-CAM" in other["methods"]  # with these weights its map is negative everywhere
    assert finding["methods"] == ["Deconvnet", "Guided Backprop", "Guided Grad-CAM"]
    assert finding["where"] == ["1", "3"]
    assert made.view.status["method"] == "Gradient"
    made.close()


def test_the_check_up_is_repeated_only_if_the_model_has_changed(monkeypatch):
    from saliency_widgets.api import checkup as module

    runs = []
    original = module.check_up
    monkeypatch.setattr(module, "check_up", lambda *args: runs.append(1) or original(*args))
    model = nn.Sequential(conv_net(), nn.Dropout(0.5)).float().eval()
    made = explorer(model)
    made.update(method="smoothgrad", n_samples=3)
    made.update(target=1)
    assert len(runs) == 1
    assert made.view.findings == []
    model.train()
    made.update(method="gradient")
    assert len(runs) == 2
    assert "Dropout is active" in made.view.findings[0]["what"]
    model.eval()
    made.update(target=2)
    assert made.view.findings == []
    made.close()


def test_a_failed_check_up_is_reported_and_the_map_is_computed(monkeypatch):
    from saliency_widgets.api import checkup as module

    def fail(*_args):
        raise ZeroDivisionError("no")

    monkeypatch.setattr(module, "check_up", fail)
    made = explorer()
    assert made.attribution is not None
    assert made.view.findings[0]["what"] == "The check-up failed: ZeroDivisionError: no."
    made.close()


def test_with_several_inputs_the_image_is_explained_and_the_others_are_constant():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.table = net(), mlp().float()

        def forward(self, table, image):
            return self.net(image)[:, :3] * self.table(table)

    model = TwoInputs().eval()
    inputs = {"table": rows(0, 1, 4).float(), "image": X}
    made = explorer(model, inputs, target=1)
    assert made.attribution.values.shape == X.shape
    assert made.settings["explain"] == "image"
    assert torch.equal(sw.attribute(**made.settings).values, made.attribution.values)
    leaf = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(inputs["table"], leaf)[0, 1], leaf)
    torch.testing.assert_close(made.attribution.values, expected)
    made.close()
    with pytest.raises(ValueError, match="the explorer shows images"):
        explorer(model, inputs, explain="table")


def test_an_image_in_a_nested_mapping_is_explained_with_the_current_other_inputs():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.table = net(), mlp().float()

        def forward(self, batch, gate):
            return self.net(batch["image"])[:, :3] * self.table(batch["row"]) * gate[:, None]

    model, row, gate = Nested().eval(), rows(0, 1, 4).float(), torch.tensor([2.0])
    made = explorer(model, {"batch": {"image": X, "row": row}, "gate": gate}, method="gradient", target=1)
    assert made.settings["explain"] == "batch.image"
    for target in (1, 2):
        made.update(target=target)
        made.wait()
        leaf = X.clone().requires_grad_()
        (expected,) = torch.autograd.grad(model({"image": leaf, "row": row}, gate)[0, target], leaf)
        torch.testing.assert_close(made.attribution.values, expected)
        row += 1
        gate *= 3
    made.close()


def test_the_layer_menu_lists_layers_with_their_shapes_the_last_first():
    made = explorer(method="grad_cam")
    control = next(c for p, c in made.panel._params.items() if p.name == "layer")
    labels = [label for label, _ in control.widget.options]
    assert labels == [
        "auto · the last spatial layer",
        "4 · 5 × 2 × 2",
        "3 · 5 × 8 × 8",
        "2 · 5 × 8 × 8",
        "1 · 6 × 16 × 16",
        "0 · 6 × 16 × 16",
    ]
    assert control.value is None
    assert made.attribution.layer == "4"
    control.widget.value = "3"
    assert made.attribution.layer == "3"
    assert torch.equal(
        made.attribution.values, sw.attribute(made.arguments["model"], X, method="grad_cam", layer="3").values
    )
    made.update(layer=None)
    assert made.attribution.layer == "4"
    made.close()


def test_a_reshape_function_is_applied_to_the_layer():
    made = explorer(method="grad_cam", reshape=lambda out: out.flip(2))
    plain = sw.attribute(made.arguments["model"], X, method="grad_cam")
    torch.testing.assert_close(made.attribution.values, plain.values.flip(2))
    made.close()


def test_running_out_of_memory_is_reported_and_the_number_of_rows_is_remembered():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()
            self.tally = Tally()

        def forward(self, x):
            if len(x) > 3:
                self.tally.passes += 1
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.net(x)

    model = Small().eval()
    made = explorer(model, method="smoothgrad", n_samples=12, target=0)
    assert made.attribution.complete
    assert "did not fit in memory" in made.view.status["remark"]
    assert any("Memory ran out" in note for note in made.view.status["notes"])
    failed = model.tally.passes
    assert failed > 0
    made.update(n_samples=20)
    assert model.tally.passes == failed, "a number of rows that had failed was tried again"
    expected = sw.attribute(model.net, X, method="smoothgrad", n_samples=20, target=0)
    torch.testing.assert_close(made.attribution.values, expected.values)
    made.close()


def test_class_names_are_read_from_the_models_config():
    model = net()
    model.config = type("Config", (), {"id2label": {0: "ape", 1: "bee", 2: "cat", 3: "dog"}})()
    made = explorer(model, target="cat")
    assert made.attribution.settings["target"] == 2
    assert made.view.status["title"] == "Gradient · cat"
    made.close()
    model.config.id2label = {0: "one", 1: "two"}  # 2 names for 4 classes are ignored
    made = explorer(model, target=2)
    assert made.view.status["title"] == "Gradient · class 2"
    made.close()


def test_two_explorers_of_one_model_give_correct_maps_at_the_same_time():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.4), *conv_net(channels=4)
    ).float()
    model.train()
    requested = [
        ("guided_backprop", 0),
        ("smoothgrad", 1),
        ("integrated_gradients", 2),
        ("grad_cam", 3),
        ("gradient", 1),
    ]
    both = [Explorer(model, image, target=0) for image in (X, X.flip(3))]
    before = [buffer.clone() for buffer in model.buffers()]
    for method, target in requested:
        for made in both:
            made.update(method=method, target=target)
        for made in both:
            result = made.wait(60)
            expected = sw.attribute(**made.settings)
            assert np.array_equal(result.values.numpy(), expected.values.numpy()), method
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    for made in both:
        made.close()


# ---- captum's methods in the menu


def test_captums_methods_are_in_the_menu_with_their_sliders():
    import captum.attr

    model = net()
    occlusion = sw.from_captum(captum.attr.Occlusion(model), sliding_window_shapes=(3, 4, 4), strides=(3, 4, 4))
    made = explorer(
        model, target=1, methods=[captum.attr.DeepLift(model), "captum.FeatureAblation", occlusion, occlusion]
    )
    menu = {label: name for label, name in made.panel._method.widget.options if "captum" in name}
    assert len(menu) == 4
    assert len({*menu.values()}) == 4
    for title, name in menu.items():
        made.update(method=name)
        assert made.view.status["state"] == "done", made.view.status["message"]
        assert made.view.status["title"].startswith(title)
        assert torch.equal(sw.attribute(**made.settings).values, made.attribution.values)
    reference = captum.attr.DeepLift(model).attribute(X, baselines=torch.zeros_like(X), target=1)
    made.close()
    torch.testing.assert_close(sw.attribute(model, X, method=captum.attr.DeepLift(model), target=1).values, reference)


def test_a_captum_method_can_be_initial_and_its_settings_can_be_stored_as_text():
    made = explorer(method="captum.IntegratedGradients", target=1, n_steps=7)
    assert made.attribution.settings["method"] == "captum.IntegratedGradients"
    assert made.attribution.settings["n_steps"] == 7
    assert "    method='captum.IntegratedGradients',\n" in made.to_code()
    again = sw.attribute(**{**made.settings, **sw.Attribution.settings_from_json(made.attribution.to_json())})
    assert torch.equal(again.values, made.attribution.values)
    control = next(c for p, c in made.panel._params.items() if p.name == "n_steps" and c.value == 7)
    control.widget.value = 9
    assert made.attribution.settings["n_steps"] == 9
    with pytest.raises(ValueError, match=r"method: 'captum.Saliency' is not known|is not in this explorer's menu"):
        made.update(method="captum.Saliency")
    made.close()
