"""Speed, reuse, memory and accuracy without a browser: CPU seconds on one thread, ratios inside one run."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from models import IMAGES, bare_gradient, input_of, model_of, tuned_by_hand
from timing import Elsewhere, Row, interleaved, seconds
from torch import Tensor, nn
from tqdm.auto import tqdm

from saliency_widgets.api.attribute import attribute
from saliency_widgets.attribution import Reduction, Score
from saliency_widgets.attribution.errors import Cancelled
from saliency_widgets.attribution.numerics.quadrature import RULES
from saliency_widgets.evaluation.ablation import ablate
from saliency_widgets.evaluation.curves import curve
from saliency_widgets.runtime.allocator import tune_allocator
from saliency_widgets.session import Cache, Event, Problem, Request, Session
from saliency_widgets.session.compute import compute

MODELS = ("EfficientNet-Lite0", "ResNet-18")
TARGET, OTHERS = 285, (281, 282, 283, 284, 286, 287, 288, 289, 290)
N = 50
BLACK = (0 - 127) / 128


class Ours:
    """A session like the explorer's that computes in the calling thread.

    Args:
        model: The model.
        x: The input.
        **how: Further arguments of :class:`Problem`: precision, CUDA graphs and a tokenizer.
    """

    def __init__(self, model: nn.Module, x: Any, **how: Any) -> None:
        self.model, self.x = model, x
        self.problem = Problem(model, x, **how)
        self.cache = Cache()
        self.last: Event | None = None
        self.first: float | None = None
        self._began = 0.0
        self.session = Session(self.problem, self._on_event, executor="inline", cache=self.cache)
        # An explorer computes the predictions and the menu of layers before any request.
        assert len(self.problem.logits) == 1
        assert self.problem.layers is not None

    @classmethod
    def named(cls, name: str, device: str = "cpu", **how: Any) -> Ours:
        """Return the session of a model of :func:`model_of` and an image."""
        return cls(model_of(name, device), input_of(device=device), **how)

    def _on_event(self, event: Event) -> None:
        if event.error is not None:
            raise event.error
        if self.first is None and event.frame is not None:
            self.first = time.process_time() - self._began
        self.last = event

    def ask(self, method: str, target: Any = TARGET, **params: Any) -> None:
        """Submit a request, and compute its result."""
        self.first, self._began = None, time.process_time()
        self.session.submit(Request.of(method, params, target=target))

    def forget(self) -> None:
        """Clear the cache, except for the predictions."""
        self.cache.forget(self.session.owner)

    def after(self, prepare: Callable[[], Any], work: Callable[[], Any]) -> Callable[[], float]:
        """Return a timer of ``work`` alone, which runs ``prepare`` before it."""

        def timed() -> float:
            prepare()
            return seconds(work)

        return timed

    def fresh(self, method: str, target: int = TARGET, **params: Any) -> Callable[[], float]:
        """Return a timer of a request with an empty cache."""
        return self.after(self.forget, lambda: self.ask(method, target, **params))


def peers_of(model: str, device: str = "cpu") -> Mapping[str, Callable[[], Any]]:
    """Computations by other libraries, by name; built and run in a separate process."""
    import saliency.core as pair
    from captum.attr import IntegratedGradients, NoiseTunnel, Saliency

    net, x = model_of(model, device), input_of(device=device)
    start = torch.full_like(x, BLACK)
    spread = 0.15 * float(x.max() - x.min())
    integrated, noisy = IntegratedGradients(net), NoiseTunnel(Saliency(net))

    def captum_ig(rows: int | None) -> Callable[[], Any]:
        return lambda: integrated.attribute(x, start, TARGET, n_steps=N, internal_batch_size=rows)

    def captum_smoothgrad(rows: int | None) -> Callable[[], Any]:
        return lambda: noisy.attribute(
            x, nt_samples=N, stdevs=spread, target=TARGET, abs=False, nt_samples_batch_size=rows
        )

    def pair_call(rows: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:  # noqa: ARG001
        leaf = torch.tensor(rows, dtype=torch.float32, device=device).movedim(-1, 1).requires_grad_(True)
        (gradient,) = torch.autograd.grad(net(leaf)[:, TARGET].sum(), leaf)
        return {pair.INPUT_OUTPUT_GRADIENTS: gradient.movedim(1, -1).cpu().numpy()}

    image = x[0].movedim(0, -1).cpu().numpy()
    timers: dict[str, Callable[[], Any]] = {
        f"captum IG {rows or 'default'}": captum_ig(rows) for rows in (None, 4, 8, 16)
    }
    timers |= {f"captum SmoothGrad {rows or 'default'}": captum_smoothgrad(rows) for rows in (None, 4, 8, 16)}
    timers["PAIR IG"] = lambda: pair.IntegratedGradients().GetMask(
        image, pair_call, x_steps=N, x_baseline=start[0].movedim(0, -1).cpu().numpy(), batch_size=8
    )
    timers["PAIR SmoothGrad"] = lambda: pair.GradientSaliency().GetSmoothedMask(
        image, pair_call, nsamples=N, stdev_spread=0.15, magnitude=False
    )
    return timers


def bare_loop(ours: Ours, variant: Callable[[range], Tensor], rows: int) -> Callable[[], Any]:
    """The sum of N gradients in passes of ``rows`` rows, on a copy tuned by hand."""
    gradient = bare_gradient(tuned_by_hand(ours.model), TARGET)

    def work() -> None:
        total = torch.zeros_like(ours.x)
        for first in range(0, N, rows):
            total += gradient(variant(range(first, min(first + rows, N)))).sum(0)

    return work


def speed(name: str, rounds: int, device: str = "cpu") -> list[Row]:
    """Requests with an empty cache, compared with a bare loop and other libraries."""
    ours, peers = Ours.named(name, device), Elsewhere(peers_of, name, device)
    start, difference = torch.full_like(ours.x, BLACK), ours.x - BLACK
    spread = 0.15 * float(ours.x.max() - ours.x.min())
    rows = ours.problem.rows or (16 if device == "cpu" else 64)  # the same batch on both sides

    def on_the_path(k: range) -> Tensor:
        return start + torch.tensor([(j + 0.5) / N for j in k], device=device).view(-1, 1, 1, 1) * difference

    def noisy(k: range) -> Tensor:
        return ours.x + spread * torch.randn(len(k), *ours.x.shape[1:], device=device)

    ig = {"n_steps": N - 1, "quadrature": "trapezoid"}  # N gradients
    timers = {
        "IG": ours.fresh("integrated_gradients", **ig),
        "SmoothGrad": ours.fresh("smoothgrad", n_samples=N),
        "bare IG": lambda: seconds(bare_ig),
        "bare SmoothGrad": lambda: seconds(bare_smoothgrad),
        **{peer: peers.timer(peer) for peer in peers.names},
    }
    bare_ig, bare_smoothgrad = bare_loop(ours, on_the_path, rows), bare_loop(ours, noisy, rows)
    t = interleaved(timers, rounds)
    peers.close()

    def row(what: str, value: float, limit: float | None = None, note: str = "") -> Row:
        return Row(name, what, value, limit, note=note)

    result = []
    for method, best_limit, default_limit in (("IG", 0.75, 0.40), ("SmoothGrad", 0.75, 0.45)):
        best = min((k for k in t if k.startswith(f"captum {method}") and "default" not in k), key=t.__getitem__)
        each = f"{t[method] / N * 1e3:.1f} ms a gradient"
        result += [
            row(f"{method}-50 / bare loop", t[method] / t[f"bare {method}"], 1.05, each),
            row(f"{method}-50 / captum, best batch", t[method] / t[best], best_limit, f"{best.split()[-1]} rows"),
            row(f"the bare loop itself / captum {method}, best batch", t[f"bare {method}"] / t[best]),
            row(f"{method}-50 / captum, default", t[method] / t[f"captum {method} default"], default_limit),
            row(f"{method}-50 / PAIR", t[method] / t[f"PAIR {method}"]),
        ]
    return result


def _methods_of(name: str, tuned: bool) -> Mapping[str, Callable[[], Any]]:
    """Two methods with an empty cache, in a process whose allocator is tuned or not."""
    if tuned and not tune_allocator():
        raise SystemExit("The C library here is not GNU's.")
    ours = Ours.named(name)
    settings = {"integrated_gradients": {"n_steps": N - 1, "quadrature": "trapezoid"}, "smoothgrad": {"n_samples": N}}

    def from_scratch(method: str) -> Callable[[], None]:
        return lambda: (ours.forget(), ours.ask(method, **settings[method]))[1]

    return {method: from_scratch(method) for method in settings}


def allocator(name: str, rounds: int) -> list[Row]:
    """The gain by ``sw.tune_allocator()``: the same work in two processes, in turn."""
    processes = {"tuned": Elsewhere(_methods_of, name, True), "as it is": Elsewhere(_methods_of, name, False)}
    timers = {(who, method): p.timer(method) for who, p in processes.items() for method in p.names}
    t = interleaved(timers, rounds)
    for process in processes.values():
        process.close()
    return [
        Row(name, f"{method}-{N}, allocator tuned / as it is", t["tuned", method] / t["as it is", method],
            note=f"{t['as it is', method] / N * 1e3:.1f} ms a gradient as it is")
        for method in processes["tuned"].names
    ]  # fmt: skip


def reuse(name: str, rounds: int, device: str = "cpu") -> list[Row]:
    """The cost of a request when results of other settings are cached."""
    ours = Ours.named(name, device)
    others = iter(OTHERS * 99)
    signs = iter(("signed", "positive", "squared", "negative") * 99)

    def ask(method: str, target: int = TARGET, **params: Any) -> Callable[[], None]:
        return lambda: ours.ask(method, target, **params)

    def from_scratch(*before: Callable[[], Any]) -> Callable[[], None]:
        def prepare() -> None:
            ours.forget()
            for work in before:
                work()

        return prepare

    def switched(method: str) -> Callable[[], float]:
        # The graph of the inputs is cached; each round requests another class.
        prepare = from_scratch(ask(method))
        return lambda: (prepare(), seconds(ask(method, next(others))))[1]

    def ig(n: int) -> dict[str, Any]:
        return {"n_steps": n, "quadrature": "trapezoid", "baseline": "zero"}

    def first_frame(method: str, **params: Any) -> Callable[[], float]:
        def timed() -> float:
            ours.forget()
            ours.ask(method, **params)
            assert ours.first is not None
            return ours.first

        return timed

    steps = "integrated_gradients"
    timers = {
        "gradient": lambda: (ours.forget(), seconds(lambda: list(compute(ours.problem, GRADIENT))))[1],
        "class": switched("gradient"),
        "seen": ours.after(from_scratch(ask("gradient"), ask("gradient", 281)), ask("gradient")),
        "cam class": switched("grad_cam"),
        "20 -> 50": ours.after(from_scratch(ask("smoothgrad", n_samples=20)), ask("smoothgrad", n_samples=50)),
        "50": ours.fresh("smoothgrad", n_samples=50),
        **{f"ig {n}": ours.fresh(steps, **ig(n)) for n in (32, 64)},
        "16 -> 32": ours.after(from_scratch(ask(steps, **ig(16))), ask(steps, **ig(32))),
        "32 -> 64": ours.after(from_scratch(ask(steps, **ig(32))), ask(steps, **ig(64))),
        "sign": ours.after(from_scratch(ask("gradient")), lambda: ours.session.reduce(Reduction(next(signs)))),
        **{f"first {m}": first_frame(m) for m in ("gradient", steps, "smoothgrad", "grad_cam")},
    }
    t = interleaved(timers, rounds)
    one = t["gradient"]
    ours.ask("gradient")
    passes = ours.problem.memory.passes
    ours.session.reduce(Reduction("squared", "L2"))
    passes = ours.problem.memory.passes - passes
    return [
        Row(name, "class switch, gradient / one gradient", t["class"] / one, 0.60, note=f"one is {one * 1e3:.0f} ms"),
        Row(name, "a class seen before / one gradient", t["seen"] / one, 0.03),
        Row(name, "Grad-CAM class switch / one gradient", t["cam class"] / one, 0.05),
        Row(name, "SmoothGrad 20 -> 50 / 50", t["20 -> 50"] / t["50"], 0.65),
        Row(name, "IG 16 -> 32 / 32", t["16 -> 32"] / t["ig 32"], 0.55),
        Row(name, "IG 32 -> 64 / 64", t["32 -> 64"] / t["ig 64"], 0.55),
        Row(name, "another sign / one gradient", t["sign"] / one, 0.10),
        Row(name, "model calls for another sign and channels", passes, 0, "calls"),
        *(
            Row(name, f"first frame, {m} / one gradient", t[f"first {m}"] / one, 0.6 if m == "grad_cam" else 1.3)
            for m in ("gradient", steps, "smoothgrad", "grad_cam")
        ),
    ]


def weights(rounds: int) -> list[Row]:
    """The cost of requests that need no pass, by the size of the model: it must not grow with the weights."""
    timers, gradients = {}, {}
    signs = iter(("signed", "positive", "squared", "negative") * 99)
    for name in ("ViT-B", "ViT-L"):
        ours = Ours.named(name)
        ours.ask("gradient", 1)
        gradients[name] = min(seconds(lambda k=k, ours=ours: ours.ask("gradient", k)) for k in (2, 3))
        targets = iter((1, 2, 3) * 99)
        timers[name, "a class seen before"] = lambda ours=ours, targets=targets: seconds(
            lambda: ours.ask("gradient", next(targets))
        )
        timers[name, "another sign"] = lambda ours=ours: seconds(lambda: ours.session.reduce(Reduction(next(signs))))
    t = interleaved(timers, 3 * rounds)
    rows = []
    for what in ("a class seen before", "another sign"):
        large, small = t["ViT-L", what], t["ViT-B", what]
        note = f"{large * 1e3:.1f} ms"
        rows += [
            Row("ViT-L", f"{what} / one gradient", large / gradients["ViT-L"], 0.02, note=note),
            Row("ViT-L", f"{what} / the same of ViT-B", large / small, 1.3, note=note),
        ]
    return rows


GRADIENT = Request.of("gradient", {}, target=TARGET)


def trust(name: str, rounds: int, device: str = "cpu") -> list[Row]:
    """Trust tests, compared with single forward passes of the user's model."""
    ours = Ours.named(name, device)
    runner = ours.problem.runner(Score("logit", torch.tensor([TARGET], device=device)))
    values = torch.rand(ours.x.shape[2:], generator=torch.Generator().manual_seed(0))
    mask = values > 0.9

    def one_by_one() -> None:
        with torch.no_grad():
            for _ in range(N):
                ours.model(ours.x)

    def deleted(fill: str) -> Callable[[], Any]:
        return lambda: list(curve(runner, values, "deletion", steps=N - 1, fill=fill))

    timers = {
        "forwards": lambda: seconds(one_by_one),
        "blur": lambda: seconds(deleted("blur")),
        "mean": lambda: seconds(deleted("mean")),
        "neighbors": lambda: seconds(deleted("neighbors")),
        "ablation": lambda: seconds(lambda: next(ablate(runner, mask, fill="blur"))),
    }
    t = interleaved(timers, rounds)
    each = f"one is {t['forwards'] / N * 1e3:.0f} ms"
    return [
        Row(name, "50 deletion steps, blur / 50 single forwards", t["blur"] / t["forwards"], 0.85, note=each),
        Row(name, "50 deletion steps, mean / 50 single forwards", t["mean"] / t["forwards"], 0.85),
        Row(name, "50 deletion steps, neighbors / 50 single forwards", t["neighbors"] / t["forwards"]),
        Row(name, "a region taken away, first answer / two single forwards", t["ablation"] / t["forwards"] * N / 2),
    ]


def staleness(name: str, rounds: int, device: str = "cpu") -> list[Row]:
    """How long stale work continues, in chunks of 8 rows. Wall time, because it is about waiting."""
    ours = Ours.named(name, device)
    until = float("inf")

    def check() -> None:
        if time.perf_counter() > until:
            raise Cancelled

    runner = ours.problem.runner(Score("logit", torch.tensor([TARGET])), check)
    rows = ours.x.expand(8, -1, -1, -1).contiguous()
    runner.gradient(rows)
    late, chunk = [], []
    for turn in range(rounds * 6):
        until, began = float("inf"), time.perf_counter()
        runner.gradient(rows)
        chunk.append(time.perf_counter() - began)
        until = time.perf_counter() + chunk[-1] * (0.08 + 0.15 * (turn % 6))
        try:
            runner.gradient(rows)
        except Cancelled:
            late.append(time.perf_counter() - until)
    note = f"worst of {len(late)}: {max(late) / median(chunk):.2f}"
    return [Row(name, "stale work after an event / a chunk of 8", median(late) / median(chunk), 0.25, note=note)]


def _peak(name: str, work: str, line: Any) -> None:
    """Send by how many bytes the resident memory grew at its peak; run in a separate process."""
    torch.set_num_threads(1)
    tune_allocator()
    ours = Ours.named(name)
    ours.ask("gradient")
    ours.forget()
    before = _resident()
    if work == "chunk":
        rows = ours.x.expand(16, -1, -1, -1).contiguous()
        ours.problem.runner(Score("logit", torch.tensor([TARGET]))).gradient(rows)
    elif work == "smoothgrad":
        ours.ask("smoothgrad", n_samples=200)
    else:
        ours.ask("integrated_gradients", n_steps=256, tolerance=0.0)
    line.send(_resident("VmHWM") - before)


def _resident(which: str = "VmRSS") -> int:
    """The memory of this process in bytes; getrusage would include the peak of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def memory(name: str) -> list[Row]:
    """Peak memory of many evaluations, including what is cached of them, compared with one chunk of 16."""
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for work in ("chunk", "smoothgrad", "adaptive IG"):
        line, there = context.Pipe()
        process = context.Process(target=_peak, args=(name, work, there))
        process.start()
        peaks[work] = line.recv()
        process.join()
    note = f"a chunk of 16 takes {peaks['chunk'] / 2**20:.0f} MiB"
    return [
        Row(name, "peak memory, SmoothGrad-200 / a chunk of 16", peaks["smoothgrad"] / peaks["chunk"], 1.2, note=note),
        Row(name, "peak memory, adaptive IG-256 / a chunk of 16", peaks["adaptive IG"] / peaks["chunk"], 1.2),
    ]


def accuracy(name: str, steps: int = 1024) -> list[Row]:
    """The relative L1 error of maps of about 50 evaluations, against a reference of many, on several images."""
    model = model_of(name)
    gradient = None
    errors: dict[str, list[float]] = {}
    notes = []
    for image in IMAGES:
        x = input_of(image)
        target = int(model(x).argmax())
        start = torch.full_like(x, BLACK)
        gradient = bare_gradient(tuned_by_hand(model), target)

        def integral(
            rule: str, n: int, start: Any = start, difference: Any = x - start, gradient: Any = gradient
        ) -> Any:
            nodes, weights = RULES[rule](n)
            total = torch.zeros_like(difference)
            for first in range(0, len(nodes), 16):
                t = nodes[first : first + 16].to(difference).view(-1, 1, 1, 1)
                rows = gradient(start + t * difference)
                total += (weights[first : first + 16].to(difference).view(-1, 1, 1, 1) * rows).sum(0)
            return difference * total

        reference = integral("trapezoid", steps)
        adaptive = attribute(model, x, target=target, baseline=start, n_steps=48, tolerance=0.0)
        maps = {
            "adaptive": adaptive.values,
            "gauss_legendre": integral("gauss_legendre", 50),
            "midpoint": integral("midpoint", 50),
            "clenshaw_curtis": integral("clenshaw_curtis", 48),
            "trapezoid": integral("trapezoid", 48),
        }
        size = reference.abs().sum()
        for rule, values in maps.items():
            errors.setdefault(rule, []).append(float((values - reference).abs().sum() / size))
        notes.append(float(adaptive.map_error[0]) / errors["adaptive"][-1])
    ratios = [a / b for a, b in zip(errors["adaptive"], errors["gauss_legendre"], strict=True)]
    each = ", ".join(f"{p} {r:.2f}" for p, r in zip(IMAGES, ratios, strict=True))
    rows = [
        Row(name, f"map error, adaptive IG at 49 / Gauss-Legendre 50, median of {len(IMAGES)} images",
            median(ratios), 0.80, note=each),
        Row(name, "estimated / true map error, adaptive IG at 49, median", median(notes), unit="ratio",
            note=f"{min(notes):.2f} to {max(notes):.2f}"),
    ]  # fmt: skip
    return rows + [Row(name, f"map error, {rule} (relative L1)", median(e), unit="") for rule, e in errors.items()]


def measure(rounds: int, device: str = "cpu") -> list[Row]:
    """Measure everything; print the name of each part as it begins."""
    torch.set_num_threads(1)
    tune_allocator()
    parts: list[tuple[str, Callable[[], list[Row]]]] = []
    for name in MODELS:
        parts += [
            (f"{name}: speed", partial(speed, name, rounds, device)),
            (f"{name}: reuse", partial(reuse, name, rounds, device)),
            (f"{name}: stale work", partial(staleness, name, rounds, device)),
            (f"{name}: trust", partial(trust, name, rounds, device)),
        ]
        if device == "cpu":
            parts.append((f"{name}: allocator", partial(allocator, name, rounds)))
            parts.append((f"{name}: memory", partial(memory, name)))
    if device == "cpu":
        parts.append(("ViT-B and ViT-L: weights", partial(weights, rounds)))
        parts.append((f"{MODELS[0]}: accuracy", partial(accuracy, MODELS[0])))
    rows: list[Row] = []
    for title, part in tqdm(parts, unit="part"):
        tqdm.write(title)
        rows += part()
    return rows
