"""The pretend accelerator: built once, registered as the device "pretend", and its counters."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import cpp_extension

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "pretend"
DEVICE = "pretend"
NO_COMPILER = (
    "the tests on a pretend device need a C++ compiler, and there is no {name!r}: install one "
    "(apt-get install g++), or set CXX to its path"
)


class CompilerMissingError(RuntimeError):
    """There is no C++ compiler."""


@dataclass
class Crossings:
    """What crossed between device and host.

    Attributes:
        to_host: Copies to the host.
        from_host: Copies to the device, for which nobody waits.
        read: Single numbers that were read, and operations whose result's size depends on numbers.
    """

    to_host: int = 0
    from_host: int = 0
    read: int = 0

    @property
    def waits(self) -> int:
        """How often the host waited for the device."""
        return self.to_host + self.read


@cache
def extension() -> Any:
    """The extension, compiled unless that was done before; the device is there from then on.

    Raises:
        CompilerMissingError: There is no C++ compiler.
    """
    compiler = cpp_extension.get_cxx_compiler()
    if shutil.which(compiler) is None:
        raise CompilerMissingError(NO_COMPILER.format(name=compiler))
    BUILD.mkdir(parents=True, exist_ok=True)
    # Torch's own lock is a file that outlives whoever is killed, and is waited for forever.
    with (BUILD / "building").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        (BUILD / "lock").unlink(missing_ok=True)
        with pytest.MonkeyPatch.context() as environment:
            # Torch runs ninja by its name; in an environment that isn't activated it is on no path.
            environment.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
            result = cpp_extension.load(
                "pretend_device", [str(HERE / "pretend.cpp")], extra_cflags=["-O1"], build_directory=str(BUILD)
            )
    torch.utils.rename_privateuse1_backend(DEVICE)
    module = types.ModuleType(f"torch.{DEVICE}")
    vars(module).update(
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda _seed: None,  # random numbers are drawn by the CPU's kernels, from its generator
    )
    torch._register_device_module(DEVICE, module)
    return result


@contextmanager
def counted(observer: Callable[[str], None] | None = None) -> Iterator[Crossings]:
    """Count what crosses in this block; the numbers are there at its end.

    Args:
        observer: Called at each crossing with its name, on the thread where it happens: a traceback tells from where.
    """
    crossings = Crossings()
    extension().reset()
    extension().observe(observer)
    try:
        yield crossings
    finally:
        extension().observe(None)
        vars(crossings).update(extension().counts())
