"""Computing changes no setting of the caller's process; only ``tune_allocator`` does."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import saliency_widgets as sw
from saliency_widgets.runtime import allocator


def run(code: str) -> str:
    """Run code in a new interpreter and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


WORK = """
import torch, saliency_widgets as sw
nn, x = torch.nn, torch.rand(1, 3, 8, 8)
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
def work():
    sw.attribute(model, x, method="smoothgrad", n_samples=4)
    sw.attribute(model, x, precision="full")
    sw.evaluate(model, x, steps=2, stages=1, turns=1, progress=False)
    explorer = sw.explore(model, x)
    explorer.wait()
    explorer.close()
"""

# By default, glibc maps a block of 31 MiB separately, which mallinfo reports; after tuning, it is taken from the heap.
MAPPED = """
import ctypes
libc = ctypes.CDLL(None)
class Info(ctypes.Structure):
    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]
libc.mallinfo2.restype, libc.malloc.restype, libc.malloc.argtypes = Info, ctypes.c_void_p, [ctypes.c_size_t]
before = libc.mallinfo2().hblkhd
block = libc.malloc(31 * 2**20)
print(libc.mallinfo2().hblkhd - before >= 31 * 2**20)
"""


@pytest.mark.skipif(not hasattr(allocator._glibc(), "mallinfo2"), reason="needs glibc 2.33 or newer")
def test_the_allocator_is_changed_only_by_tune_allocator() -> None:
    assert run(WORK + "work()" + MAPPED).split() == ["True"]
    assert run("import saliency_widgets as sw\nprint(sw.tune_allocator())" + MAPPED).split() == ["True", "False"]


class Library:
    """A C library that records the options that are set."""

    def __init__(self, status: int = 1) -> None:
        self.status = status
        self.settings: list[int] = []

    def mallopt(self, option: int, _value: int) -> int:
        """Like glibc's, which returns 1 on success."""
        self.settings.append(option)
        return self.status

    def malloc_trim(self, _pad: int) -> int:
        """Like glibc's."""
        return 0


def test_computing_sets_nothing_in_the_c_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = Library()
    monkeypatch.setattr(allocator, "_glibc", lambda: library)
    model, x = torch.nn.Linear(3, 2), torch.rand(3)
    sw.attribute(model, x)
    sw.ablate(model, x, [True, False, False], fill="zero")
    sw.shuffle(model, x, torch.rand(5, 3))
    sw.sweep(model, [x], "smoothgrad", {"n_samples": [2, 4]}, store=tmp_path / "cells", progress=False)
    sw.explore(model, x, executor="inline").close()
    assert library.settings == []
    assert sw.tune_allocator()
    assert sorted(library.settings) == [-8, -3, -2, -1]  # arenas, mmap threshold, top pad, trim threshold


@pytest.mark.parametrize("library", [None, Library(status=0)], ids=["another C library", "a C library that refuses"])
def test_tune_allocator_returns_false_if_it_fails(library: Library | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_glibc", lambda: library)
    assert sw.tune_allocator() is False


def test_no_other_setting_of_the_process_is_changed() -> None:
    code = (
        """
        import gc, logging, os, random, signal, sys, threading, warnings
        import numpy, pandas
        """
        + textwrap.indent(WORK, " " * 8)
        + """
        def state():
            backends = torch.backends
            return {
                "environment": dict(os.environ), "directory": os.getcwd(), "path": list(sys.path),
                "warnings": list(warnings.filters), "logging": (list(logging.root.handlers), logging.root.level),
                "recursion": sys.getrecursionlimit(), "switch": sys.getswitchinterval(), "gc": gc.get_threshold(),
                "hooks": (sys.excepthook, sys.displayhook, threading.excepthook, sys.unraisablehook),
                "tracing": (sys.gettrace(), sys.getprofile()),
                "signals": [signal.getsignal(s) for s in signal.valid_signals()],
                "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
                "dtype": torch.get_default_dtype(), "device": torch.get_default_device(),
                "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
                "deterministic": (torch.are_deterministic_algorithms_enabled(), backends.cudnn.deterministic),
                "precision": (torch.get_float32_matmul_precision(), backends.cudnn.benchmark, backends.cudnn.enabled),
                "mkldnn": backends.mkldnn.enabled, "denormal": torch.tensor(1e-310, dtype=torch.float64).mul(1).item(),
                "random": (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
                "numpy": (numpy.geterr(), numpy.get_printoptions()), "pandas": pandas.get_option("mode.copy_on_write"),
                "matplotlib": "matplotlib" in sys.modules,
            }
        sw.Explorer, sw.evaluate  # imported before, because imports may change settings
        before = state()
        work()
        after = state()
        print(*[name for name in before if before[name] != after[name]])
        """
    )
    assert run(code).split() == []
