"""Adding one file adds a method: its registration, parameters, code and contract tests follow from the file."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import conv_net, images

import saliency_widgets as sw

ROOT = Path(__file__).resolve().parents[2]
NAME = "scaled_gradient"


@pytest.fixture
def folder(tmp_path):
    """A folder with the method that CONTRIBUTING.md shows, copied verbatim."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    assert f"def {NAME}" in code
    methods = tmp_path / "methods"
    methods.mkdir()
    (methods / f"{NAME}.py").write_text(code)
    return methods


@pytest.fixture
def added(folder, monkeypatch):
    package = importlib.import_module("saliency_widgets.attribution.methods")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    importlib.invalidate_caches()
    yield
    sys.modules.pop(f"{package.__name__}.{NAME}", None)
    vars(package).pop(NAME, None)


def test_the_method_is_registered_with_its_parameter(added):
    entry = sw.methods()[NAME]
    (param,) = entry.params
    assert (param.name, param.default, param.low, param.high) == ("factor", 1.0, 0.1, 10.0)
    assert entry.title == "Scaled gradient"
    assert "factor = 1.0, 0.1 to 10" in repr(sw.methods())


def test_the_method_runs_and_its_parameter_is_checked(added):
    model, x = conv_net(), images()
    result = sw.attribute(model, x, method=NAME, factor=2.5, target=1)
    assert torch.equal(result.values, 2.5 * sw.attribute(model, x, method="gradient", target=1).values)
    assert result.settings["factor"] == 2.5
    assert "method='scaled_gradient'" in result.to_code()
    with pytest.raises(ValueError, match=r"factor: expected a number from 0\.1 to 10, got 11\.0"):
        sw.attribute(model, x, method=NAME, factor=11)
    with pytest.raises(ValueError, match="Did you mean 'scaled_gradient'"):
        sw.attribute(model, x, method="scaled_gradients")


def test_smoothgrad_can_average_a_pointwise_method_with_parameters(added, folder):
    """SmoothGrad calls the method that it averages with the defaults of its parameters."""
    file = folder / f"{NAME}.py"
    file.write_text(file.read_text().replace("params=(FACTOR,)", "params=(FACTOR,), pointwise=True"))
    model, x = conv_net(), images()
    result = sw.attribute(model, x, method="smoothgrad", base=NAME, target=1)
    assert torch.equal(result.values, sw.attribute(model, x, method="smoothgrad", target=1).values)


def test_without_its_file_the_method_is_not_registered():
    assert NAME not in sw.methods()


@pytest.mark.soak
def test_the_contract_tests_include_the_method_automatically(folder, tmp_path):
    (tmp_path / "one_more_method.py").write_text(
        "import saliency_widgets.attribution.methods as methods\n"
        f"methods.__path__ = [*methods.__path__, {str(folder)!r}]\n"
    )
    contract = Path(__file__).with_name("test_contract.py")
    listed = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--collect-only",
            "-n0",
            "-p",
            "one_more_method",
            "-p",
            "no:cacheprovider",
            contract,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert listed.returncode == 0, listed.stdout + listed.stderr
    cases = [line for line in listed.stdout.splitlines() if "::" in line]
    per_method = {name: sum(bool(re.search(rf"[\[-]{name}[\]-]", c)) for c in cases) for name in ("gradient", NAME)}
    assert per_method[NAME] == per_method["gradient"] > 15
