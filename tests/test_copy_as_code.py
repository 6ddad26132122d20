"""The snippet of a map, run in a fresh process, gives the same array bit for bit; settings go through JSON."""

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

# What a person has in their notebook before they paste the snippet.
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


def run_afresh(snippets, folder):
    """Run each snippet in a namespace of its own in one new process; the arrays that they leave."""
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
    for method, arrays in run_afresh(snippets, tmp_path).items():
        for result, wanted in zip(arrays, expected[method], strict=True):
            assert np.array_equal(result, wanted), method


def test_the_clip_range_that_is_seen_is_in_the_code_without_another_map():
    names = notebook()
    made = Explorer(names["model"], names["inputs"], executor="inline", target=2, method="gradient")
    index = made.view.frame["index"]
    made.kind_view.display.clip = [20.0, 80.0]  # as the browser does
    made.view.flush()  # no page is there to take it
    assert "clip=(20.0, 80.0)" in made.view.status["code"]
    assert made.view.frame["index"] == index
    exec(made.view.status["code"], names)
    assert np.array_equal(names["shown"], made.attribution.saliency_map(clip=(20, 80)))
    made.close()


def test_while_the_map_is_not_finished_there_is_no_code():
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
def test_settings_go_through_json_and_back(method):
    model, x = conv_net(), images()
    sizes = {name: size for name, size in SIZES.items() if name in {p.name for p in sw.methods()[method].params}}
    result = sw.attribute(model, x, method=method, target=[1, 3], contrast=0, score="probability", **sizes)
    again = sw.attribute(model, x, **json.loads(json.dumps(result.settings)))
    assert torch.equal(again.values, result.values)
    assert again.settings == result.settings
    assert sw.Attribution.settings_from_json(result.to_json()) == result.settings


def test_numbers_of_other_libraries_become_plain_ones():
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


def test_what_can_not_be_written_is_named_and_asked_for():
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
        with pytest.raises(TypeError, match=r"must be given: \['baseline', 'target'\]"):
            sw.Attribution.settings_from_json(result.to_json(), **wrong)


def test_a_list_with_something_unwritable_in_it_is_an_argument():
    stack = [images(3, 3, 8, 8), "black"]
    result = sw.attribute(conv_net(), images(), method="expected_gradients", baselines=stack, n_samples=3, target=0)
    assert "    baselines=baselines,\n" in result.to_code()
    named = sw.attribute(
        conv_net(), images(), method="expected_gradients", baselines=["black", "white"], n_samples=3, target=0
    )
    assert "    baselines=['black', 'white'],\n" in named.to_code()


def test_code_says_which_input_and_which_device():
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


def test_it_is_python_that_a_linter_would_accept():
    code = sw.attribute(conv_net(), images(), target=0, n_steps=2).to_code()
    compile(code, "snippet", "exec")
    assert code == textwrap.dedent(code)
    assert code.endswith("\n")
    assert not code.endswith("\n\n")
