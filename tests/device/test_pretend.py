"""The pretend device is as strict as a real one and counts transfers: otherwise the other tests could not fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from toys import conv_net, images

from device.pretend import counted

ROOT = Path(__file__).parents[2]


def test_the_device_computes_what_the_cpu_computes(device: str) -> None:
    model, x = conv_net(), images()
    expected = torch.autograd.grad(model(leaf := x.clone().requires_grad_()).sum(), [leaf, *model.parameters()])
    model.to(device)
    result = torch.autograd.grad(model(leaf := x.to(device).requires_grad_()).sum(), [leaf, *model.parameters()])
    assert all(one.device.type == device for one in result)
    assert all(torch.equal(one.cpu(), other) for one, other in zip(result, expected, strict=True))


@pytest.mark.parametrize(
    "operation",
    [
        lambda on_device, on_cpu: on_device + on_cpu,
        lambda on_device, on_cpu: on_cpu + on_device,
        lambda on_device, on_cpu: torch.cat([on_device, on_cpu]),
        lambda on_device, on_cpu: on_device.index_put((torch.tensor([0]),), on_cpu[:1]),
        lambda on_device, on_cpu: nn.functional.conv1d(on_device[None, None], on_cpu[None, None]),
        lambda on_device, on_cpu: on_cpu[on_device.long()],
    ],
    ids=["first", "second", "in a list", "values", "weights", "indices"],
)
def test_cpu_tensors_are_refused(device: str, operation) -> None:
    with pytest.raises(RuntimeError, match="on the same device"):
        operation(torch.ones(3).to(device), torch.ones(3))


def test_cpu_scalars_and_indices_are_accepted(device: str) -> None:
    x = torch.arange(3.0).to(device)
    assert (x + torch.tensor(1.0)).tolist() == [1, 2, 3]
    assert x[torch.tensor([2, 0])].tolist() == [2, 0]


def test_memory_is_uninitialized(device: str) -> None:
    assert torch.empty(3, device=device).isnan().all()


@pytest.mark.parametrize(
    ("operation", "count"),
    [
        (lambda x: x.cpu(), (1, 0, 0)),
        (lambda x: x.tolist(), (1, 0, 0)),
        (lambda x: x.copy_(torch.ones(3)), (0, 1, 0)),
        (lambda x: x[0].item(), (0, 0, 1)),
        (lambda x: bool(x.isfinite().all()), (0, 0, 1)),
        (lambda x: torch.equal(x, x), (0, 0, 1)),
        (lambda x: x[x > 1], (0, 0, 1)),
        (lambda x: x.nonzero(), (0, 0, 1)),
        (lambda x: (x * 2).sum().clamp(min=1).to(torch.float64), (0, 0, 0)),
    ],
    ids=["copy", "list", "to the device", "number", "truth", "equal", "mask", "nonzero", "nothing"],
)
def test_transfers_are_counted(device: str, operation, count: tuple[int, int, int]) -> None:
    x, seen = torch.arange(3.0).to(device), []
    with counted(seen.append) as crossings:
        operation(x)
    assert (crossings.to_host, crossings.from_host, crossings.read) == count
    assert len(seen) == sum(count)


def test_without_a_compiler_these_tests_fail_and_do_not_skip() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n0", "-m", "device", "tests/device", "-x"]
    env = {**os.environ, "CXX": "/nonexistent/compiler"}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1, result.stdout
    assert "need a C++ compiler, and there is no '/nonexistent/compiler'" in result.stdout
    assert "1 error" in result.stdout
    assert "skipped" not in result.stdout
