"""``import saliency_widgets`` is fast: heavy dependencies are imported on first use."""

import subprocess
import sys

import pytest

import saliency_widgets as sw

HEAVY = ("torch", "ipywidgets", "anywidget", "bqplot", "ipycanvas", "numpy", "PIL", "IPython", "skimage", "captum")
UI = ("ipywidgets", "anywidget", "bqplot", "ipycanvas", "IPython", "traitlets")


def loaded_after(code, names):
    """Return which of the modules are loaded after ``code`` was run in a new interpreter."""
    script = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_imports_nothing_heavy():
    assert loaded_after("import saliency_widgets as sw; sw.__version__; dir(sw)", HEAVY) == []


def test_attribution_imports_no_ui_library():
    code = (
        "import saliency_widgets as sw, torch\nsw.attribute(torch.nn.Linear(2, 2), torch.ones(2))\nrepr(sw.methods())"
    )
    assert loaded_after(code, UI) == []


def test_every_public_name_exists():
    assert sorted(sw.__all__) == sw.__all__
    for name in sw.__all__:
        assert getattr(sw, name) is not None
        assert name in dir(sw)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'atribute'"):
        sw.atribute  # noqa: B018
