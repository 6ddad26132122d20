"""Plant faults in a copy of the package, one at a time, and report which of them the tests don't catch.

This measures the quality of the test suite: run it before and after tests are removed or rewritten. Every fault is a
small mistake that still runs, such as a wrong sign or an endpoint that counts twice.

    python tools/plant_faults.py [part of a fault's file or name ...]

Exit status 1: a fault was not caught, or its source text is no longer in the package and must be updated.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

# Imported here for all forked processes, because the tests import them.
import captum.attr  # noqa: F401
import hypothesis  # noqa: F401
import ipywidgets  # noqa: F401
import pandas as pd  # noqa: F401
import pytest
import torch  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "saliency_widgets"
COPIED = ("saliency_widgets", "tests", "tools", "pyproject.toml")
_FAILED = 1  # pytest's exit status if tests failed; other ones mean that they could not run


class Fault(NamedTuple):
    """A mistake in one module.

    Attributes:
        name: What is wrong.
        module: The file, relative to the package.
        source: Text that occurs in it once.
        replacement: What it is replaced by.
        tests: The test files that should fail, or single tests in them, relative to ``tests``.
    """

    name: str
    module: str
    source: str
    replacement: str
    tests: str


METHODS, NUMERICS = "attribution/methods", "attribution/numerics"
FAULTS = (
    Fault("the last weight of the trapezoid rule is not halved", f"{NUMERICS}/quadrature.py",
        "weights[0] = weights[-1] = 0.5 / n_steps", "weights[0] = 0.5 / n_steps",
        "attribution/test_quadrature.py"),
    Fault("Newton's method stops early", f"{NUMERICS}/quadrature.py",
        "for _ in range(4):", "for _ in range(1):",
        "attribution/test_quadrature.py"),
    Fault("the last cosine counts twice for even n", f"{NUMERICS}/quadrature.py",
        "torch.where(2 * k == n_steps, 1.0, 2.0)", "torch.where(2 * k == n_steps, 2.0, 2.0)",
        "attribution/test_quadrature.py::test_clenshaw_curtis_is_exact_up_to_degree_n"),
    Fault("the baseline's own gradient has the weight of an inner node", f"{NUMERICS}/adaptive.py",
        "alpha=(0.5 if node == 1 else 1.0) / n", "alpha=1.0 / n",
        "attribution/test_adaptive.py::test_a_linear_model_is_exact_and_its_error_zero"),
    Fault("a completeness residual has the wrong sign", f"{NUMERICS}/adaptive.py",
        "/ 2 - (self.score[q] - self.score[p]))", "/ 2 + (self.score[q] - self.score[p]))",
        "attribution/test_adaptive.py::test_a_jump_of_the_score_is_refined_first_even_if_the_gradient_is_smooth"),
    Fault("rounds within the tolerance need not follow each other", f"{METHODS}/integrated_gradients.py",
        "torch.where(error <= tolerance, within + 1, 0)", "torch.where(error <= tolerance, within + 1, within)",
        "attribution/test_adaptive.py::test_a_round_beyond_the_tolerance_restarts_the_count"),
    Fault("the ends of the path are swapped in delta", f"{METHODS}/integrated_gradients.py",
        "values.flatten(1).sum(1) - (ends[1.0] - ends[0.0])", "values.flatten(1).sum(1) - (ends[0.0] - ends[1.0])",
        "attribution/test_exact_cases.py"),
    Fault("cached gradients of other nodes are taken", f"{METHODS}/integrated_gradients.py",
        '("nodes", halved, *nodes.flatten().tolist())', '("nodes", halved, len(nodes))',
        "session/test_reuse.py"),
    Fault("noise doesn't depend on the seed", f"{NUMERICS}/noise.py",
        "generator=seeded(seed, k)", "generator=seeded(0, k)",
        "attribution/test_exact_cases.py"),
    Fault("absolute values instead of squares are averaged", f"{METHODS}/smoothgrad.py",
        'values**2 if statistic == "squared"', 'values.abs() if statistic == "squared"',
        "attribution/test_exact_cases.py"),
    Fault("a variance with n instead of n - 1", f"{NUMERICS}/moments.py",
        "self._squares / max(self.count - 1, 1)", "self._squares / max(self.count, 1)",
        "attribution/test_exact_cases.py::test_statistic_and_standard_error_equal_their_formulas"),
    Fault("chunks are merged with the wrong weight", f"{NUMERICS}/moments.py",
        "shift**2 * (done * count / (done + count))", "shift**2 * (count / (done + count))",
        "attribution/test_exact_cases.py attribution/test_running_estimates.py"),
    Fault("halves alternate within a chunk, not over all samples", f"{NUMERICS}/moments.py",
        "drawn[first % 2 :: 2]", "drawn[::2]",
        "attribution/test_exact_cases.py::test_agreement_is_the_rank_correlation_of_two_halves_of_the_samples"),
    Fault("a running delta divides by all samples", f"{METHODS}/expected_gradients.py",
        "(score - drawn / moments.count)", "(score - drawn / n_samples)",
        "attribution/test_expected_gradients.py::test_the_draws_of_few_samples_are_the_first_of_many"),
    Fault("the blur has twice the variance", f"{METHODS}/blur_ig.py",
        "torch.exp(-0.5 * sigma**2 * squares)", "torch.exp(-(sigma**2) * squares)",
        "attribution/test_blur_ig.py"),
    Fault("Grad-CAM sums gradients", f"{METHODS}/grad_cam.py",
        "point.gradient.mean((2, 3), keepdim=True)", "point.gradient.sum((2, 3), keepdim=True)",
        "attribution/test_exact_cases.py::test_grad_cam_of_a_mean"),
    Fault("Grad-CAM++ counts the second derivative once", f"{METHODS}/grad_cam_plus_plus.py",
        "denominator = 2 + point.gradient", "denominator = 1 + point.gradient",
        "attribution/test_class_activation_maps.py"),
    Fault("LayerCAM cuts off products instead of gradients", f"{METHODS}/layer_cam.py",
        "(point.gradient.clamp(min=0) * point.activation)", "(point.gradient * point.activation).clamp(min=0)",
        "attribution/test_class_activation_maps.py"),
    Fault("the mean is over the channels, too", "attribution/baselines.py",
        "over = tuple(range(2, inputs.ndim)) or (1,)", "over = tuple(range(1, inputs.ndim)) or (1,)",
        "attribution/test_baselines.py"),
    Fault("a random baseline doesn't depend on the seed", "attribution/baselines.py",
        'generator=seeded(seed, "baseline")', 'generator=seeded(0, "baseline")',
        "attribution/test_baselines.py"),
    Fault("the largest channel instead of the largest in absolute value", "attribution/reduction.py",
        "torch.where(high >= -low, high, low)", "torch.where(high >= low, high, low)",
        "attribution/test_result.py"),
    Fault("a norm without the sign of the sum", "attribution/reduction.py",
        "values.square().sum(1).sqrt() * values.sum(1).sign()", "values.square().sum(1).sqrt()",
        "attribution/test_result.py"),
    Fault("the probability of mean logits", "attribution/score.py",
        "_over_positions(self._scaled(_formed(scores_in(output, rows), rows)))",
        "self._scaled(_over_positions(_formed(scores_in(output, rows), rows)))",
        "attribution/test_targets.py"),
    Fault("targets are repeated sample by sample", "attribution/score.py",
        'torch.arange(len(self.target), device="cpu").repeat(times)',
        'torch.arange(len(self.target), device="cpu").repeat_interleave(times)',
        "attribution/test_running_estimates.py"),
    Fault("rows belong to the wrong samples", "runtime/passes.py",
        "return numbers % batch", "return numbers.clamp(max=batch - 1)",
        "attribution/test_running_estimates.py"),
    Fault("rows that may not share a pass do", "runtime/memory.py",
        "size = 1 if singly else min(rows - done, self.limit or rows)", "size = min(rows - done, self.limit or rows)",
        "runtime/test_copies_of_one_sample.py"),
    Fault("the last pass may be twice as large", "runtime/batching.py",
        "left <= cap + over", "left <= cap + cap",
        "attribution/test_quadrature.py::test_later_chunks_are_as_large_as_allowed"),
    Fault("a ReLU6 has no upper limit", "runtime/relu_rules.py",
        "torch.where((x > 0) & (x < high), x, negative * x)", "torch.where(x > 0, x, negative * x)",
        "attribution/test_guided_backprop.py"),
    Fault("gradients of one sample are misread", "runtime/gradient_layout.py",
        "(1 in output.shape or func in _OF_ONE_SAMPLE)", "(func in _OF_ONE_SAMPLE)",
        "runtime/test_gradient_layout.py"),
    Fault("height and width of a layer's grid are swapped", "runtime/layers/layout.py",
        "cells.unflatten(2, self.grid)", "cells.unflatten(2, self.grid[::-1])",
        "runtime/test_layers.py runtime/test_coordinates.py"),
    Fault("results of other inputs are reused", "runtime/runner.py",
        "replace(self, passes=self.passes.on(rows), results=None, graphs=None)",
        "replace(self, passes=self.passes.on(rows), graphs=None)",
        "attribution/test_query.py"),
    Fault("a newer request doesn't end the one that runs", "session/jobs.py",
        "self.ending.over or self._jobs.get(job.key) is not job\n", "self.ending.over\n",
        "session/test_session.py session/test_jobs.py"),
    Fault("cached passes serve every class", "session/compute.py",
        "(score.scale, _classes(score))", "(score.scale,)",
        "session/test_reuse.py session/test_session.py"),
    Fault("a cached map that was written to is returned", "session/cache.py",
        "_versions(entry[0]) != entry[2]", "len(_versions(entry[0])) != len(entry[2])",
        "session/test_session.py session/test_reuse.py"),
    Fault("padding is shown relative to black, not to its own level", "inputs/pixels.py",
        "(x - torch.where(padded, origin, black))", "(x - black)",
        "inputs/test_transforms.py inputs/test_prepare.py"),
    Fault("a scaler gets its columns in another order", "inputs/encoder.py",
        "self._select = _column_indices(self._names, [*columns], named)",
        "self._select = sorted(_column_indices(self._names, [*columns], named))",
        "inputs/test_tables.py inputs/test_batch_detection.py"),
    Fault("an insertion curve misses one pixel", "evaluation/curves.py",
        "ranks < taken", "ranks <= taken",
        "evaluation/test_known_truths.py"),
    Fault("a p-value counts both directions as one", "evaluation/ablation.py",
        "* (1 if self.change > 0 else -1)", "* 1",
        "evaluation/test_known_truths.py"),
    Fault("the rank of a percentile is rounded down", "render/clip.py",
        "math.ceil(p * n / 100)", "math.floor(p * n / 100)",
        "render/test_clip.py"),
    Fault("a signed map's shared scale has twice the levels", "render/shared_scale.py",
        "top = ZERO if quantized.signed else LEVELS", "top = LEVELS",
        "render/test_sharing.py"),
)  # fmt: skip


def run(copy: Path, tests: str) -> tuple[int | None, str]:
    """Run some tests of the copy until the first fails, in a process that has imported torch already.

    Returns:
        pytest's exit status, and the failed test or the last line.
    """
    output = copy / "output"
    child = multiprocessing.get_context("fork").Process(target=_run, args=(copy, tests.split(), output))
    child.start()
    child.join()
    lines = [line for line in output.read_text().splitlines() if line.strip()] or ["no output"]
    return child.exitcode, next((line for line in lines if line.startswith(("FAILED", "ERROR"))), lines[-1])


def _run(copy: Path, tests: list[str], output: Path) -> None:
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    sys.dont_write_bytecode = True
    options = ["-x", "-n0", "-q", "--tb=no", "-p", "no:cacheprovider"]
    os._exit(int(pytest.main([*options, *(f"tests/{name}" for name in tests)])))


def plant(fault: Fault, copy: Path) -> str:
    """Plant a fault in the copy, run its tests, and undo it; return why it was not caught, or an empty string."""
    module = copy / "saliency_widgets" / fault.module
    source = module.read_text() if module.exists() else ""
    times = source.count(fault.source)
    if times != 1:
        return f"its source text occurs {times} times in {fault.module}, not once: {fault.source}"
    module.write_text(source.replace(fault.source, fault.replacement))
    try:
        status, line = run(copy, fault.tests)
    finally:
        module.write_text(source)
    print(f"    {line[:150]}")
    return "" if status == _FAILED else f"not caught by {fault.tests}"


def main(words: list[str]) -> int:
    """Plant all faults, or those whose file or name contains one of the words."""
    chosen = [fault for fault in FAULTS if not words or any(word in f"{fault.module} {fault.name}" for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source, target = ROOT / name, copy / name
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
        for fault in chosen:
            start = time.perf_counter()
            print(f"{fault.module}: {fault.name}", flush=True)
            why = plant(fault, copy)
            missed += bool(why)
            print(f"    {why or 'caught'} ({time.perf_counter() - start:.0f} s)", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults were caught.")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
