"""The code of a map gives the same array in a fresh process, bit for bit; settings survive JSON."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from toys import conv_net, images, mlp, rows

import saliency_widgets as sw
from saliency_widgets.widgets import Explorer

SIZES = {"n_steps": 6, "n_samples": 6}

# The notebook of the user before the snippet is pasted.
BEFORE = """
import torch
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(3)
model = nn.Sequential(
    nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4),
).eval()
inputs = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))
"""


def notebook():
    names = {}
    exec(BEFORE, names)
    return names


def run_in_fresh_process(snippets, folder):
    """Run each snippet in its own namespace in one new process, and return the resulting arrays."""
    script = ["import json, sys, numpy as np", f"before = {BEFORE!r}"]
    for name, code in snippets.items():
        script += [
            "names = {}",
            "exec(before, names)",
            f"exec({code!r}, names)",
            f"np.save({str(folder / f'{name}.values.npy')!r}, names['attribution'].values.numpy())",
            f"np.save({str(folder / f'{name}.shown.npy')!r}, names['shown'])",
        ]
    ended = subprocess.run([sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return {name: [np.load(folder / f"{name}.{part}.npy") for part in ("values", "shown")] for name in snippets}


@pytest.mark.soak
def test_the_explorers_code_gives_the_shown_array_in_a_fresh_process(tmp_path):
    names = notebook()
    made = Explorer(names["model"], names["inputs"], executor="inline", target=2)
    snippets, expected = {}, {}
    for method, entry in sw.methods().items():
        sizes = {name: size for name, size in SIZES.items() if name in {p.name for p in entry.params}}
        made.update(method=method, **sizes)
        made.update(sign="signed" if method == "gradient" else "absolute", channels="mean")
        code = made.view.status["code"]
        assert code == made.to_code()
        snippets[method] = code
        result = made.attribution
        sign = "signed" if method == "gradient" else "absolute"
        expected[method] = result.values.numpy(), result.saliency_map(sign=sign, channels="mean")
    made.close()
    for method, arrays in run_in_fresh_process(snippets, tmp_path).items():
        for result, wanted in zip(arrays, expected[method], strict=True):
            assert np.array_equal(result, wanted), method


def test_the_code_has_the_clip_range_of_the_browser_and_no_map_is_computed_again():
    names = notebook()
    made = Explorer(names["model"], names["inputs"], executor="inline", target=2, method="gradient")
    index = made.view.frame["index"]
    made.kind_view.display.clip = [20.0, 80.0]  # as the browser does
    made.view.flush()  # there is no page that acknowledges frames
    assert "clip=(20.0, 80.0)" in made.view.status["code"]
    assert made.view.frame["index"] == index
    exec(made.view.status["code"], names)
    assert np.array_equal(names["shown"], made.attribution.saliency_map(clip=(20, 80)))
    made.close()


def test_there_is_no_code_until_the_map_is_finished():
    names = notebook()
    made = Explorer(names["model"], names["inputs"], executor="inline", target=2, method="gradient")
    seen = []
    offer = made.view.offer

    def recorded(frame, status):
        seen.append((status["state"], status["done"] > 0, bool(status["code"])))
        offer(frame, status)

    made.view.offer = recorded
    made.update(method="integrated_gradients", n_steps=64)
    assert ("running", True, False) in seen
    assert ("running", True, True) not in seen
    assert seen[-1] == ("done", True, True)
    made.close()


@pytest.mark.parametrize("method", sw.methods())
def test_settings_survive_json(method):
    model, x = conv_net(), images()
    sizes = {name: size for name, size in SIZES.items() if name in {p.name for p in sw.methods()[method].params}}
    result = sw.attribute(model, x, method=method, target=[1, 3], contrast=0, score="probability", **sizes)
    again = sw.attribute(model, x, **json.loads(json.dumps(result.settings)))
    assert torch.equal(again.values, result.values)
    assert again.settings == result.settings
    assert sw.Attribution.settings_from_json(result.to_json()) == result.settings


def test_numpy_and_torch_numbers_become_python_numbers():
    result = sw.attribute(
        conv_net(),
        images(),
        method="smoothgrad",
        n_samples=np.int64(3),
        noise_level=torch.tensor(0.25),
        target=np.int64(2),
    )
    assert json.loads(result.to_json())["noise_level"] == 0.25
    assert {type(v) for v in result.settings.values()} <= {str, int, float, type(None)}


def test_settings_without_a_text_form_are_named_and_required():
    model, x = conv_net(), images()
    baseline = images(3, 2, 3, 8, 8)

    def target(output):
        return output[:, 1] - output[:, 2]

    result = sw.attribute(model, x, baseline=baseline, target=target, n_steps=4)
    written = json.loads(result.to_json())
    assert written["baseline"] == {"argument": "baseline"}
    assert written["target"] == {"argument": "target"}
    assert "# model, inputs, target, baseline: yours" in result.to_code()
    settings = sw.Attribution.settings_from_json(result.to_json(), baseline=baseline, target=target)
    assert torch.equal(sw.attribute(model, x, **settings).values, result.values)
    for wrong in ({}, {"baseline": baseline}, {"baseline": baseline, "target": target, "seed": 3}):
        with pytest.raises(TypeError, match=r"must be passed: \['baseline', 'target'\]"):
            sw.Attribution.settings_from_json(result.to_json(), **wrong)


def test_a_list_that_contains_a_tensor_is_a_variable_in_the_code():
    stack = [images(3, 3, 8, 8), "black"]
    result = sw.attribute(conv_net(), images(), method="expected_gradients", baselines=stack, n_samples=3, target=0)
    assert "    baselines=baselines,\n" in result.to_code()
    named = sw.attribute(
        conv_net(), images(), method="expected_gradients", baselines=["black", "white"], n_samples=3, target=0
    )
    assert "    baselines=['black', 'white'],\n" in named.to_code()


def test_the_code_names_the_explained_input_and_the_device():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = mlp(0), mlp(1)

        def forward(self, left, right):
            return self.left(left) * self.right(right)

    model = Two().eval()
    inputs = {"left": rows(1), "right": rows(2)}
    result = sw.attribute(model, inputs, explain="right", device="cpu", target=0, n_steps=4)
    code = result.to_code()
    assert "    explain='right',\n" in code
    assert "    device='cpu',\n" in code
    names = {"model": model, "inputs": inputs}
    exec(code, names)
    assert torch.equal(names["attribution"].values, result.values)


def test_the_code_is_valid_python_without_indentation_or_extra_newlines():
    code = sw.attribute(conv_net(), images(), target=0, n_steps=2).to_code()
    compile(code, "snippet", "exec")
    assert code == textwrap.dedent(code)
    assert code.endswith("\n")
    assert not code.endswith("\n\n")
