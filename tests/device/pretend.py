"""The pretend accelerator: compiled once and registered as the device "pretend", with counters of its transfers."""

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
    """Numbers of transfers between device and host.

    Attributes:
        to_host: Copies to the host.
        from_host: Copies to the device, for which the host does not wait.
        read: Single numbers that the host read, and operations whose result has a size that depends on values.
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
    """Compile the extension unless that was done before, register the device, and return the extension.

    Raises:
        CompilerMissingError: There is no C++ compiler.
    """
    compiler = cpp_extension.get_cxx_compiler()
    if shutil.which(compiler) is None:
        raise CompilerMissingError(NO_COMPILER.format(name=compiler))
    BUILD.mkdir(parents=True, exist_ok=True)
    # Torch's own lock is a file, which stays if its process is killed, and for which others would wait forever.
    with (BUILD / "building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (BUILD / "lock").unlink(missing_ok=True)
        with pytest.MonkeyPatch.context() as environment:
            # Torch runs ninja by name, but it is not on PATH if the environment isn't activated.
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
        manual_seed_all=lambda _seed: None,  # the CPU's kernels draw random numbers from the CPU's generator
    )
    torch._register_device_module(DEVICE, module)
    return result


@contextmanager
def counted(observer: Callable[[str], None] | None = None) -> Iterator[Crossings]:
    """Count the transfers in a block; the numbers are set at its end.

    Args:
        observer: Called at each transfer with its kind, on the thread that causes it, so that a traceback shows where.
    """
    crossings = Crossings()
    extension().reset()
    extension().observe(observer)
    try:
        yield crossings
    finally:
        extension().observe(None)
        vars(crossings).update(extension().counts())
