"""The check-up: run a model a few times, and report what makes which method wrong or slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from saliency_widgets.attribution.errors import NeedsGradients, NotFinite, out_of_memory
from saliency_widgets.attribution.numerics.noise import normal_noise
from saliency_widgets.attribution.reduction import unseen
from saliency_widgets.attribution.registry import methods
from saliency_widgets.diagnostics.module_rules import HALF, in_chunks, is_script, needing, of_modules
from saliency_widgets.diagnostics.report import Checkup, Finding
from saliency_widgets.diagnostics.trace import Observation, observe
from saliency_widgets.runtime.errors import cause_of
from saliency_widgets.runtime.layers.selection import spatial_layers
from saliency_widgets.runtime.model.isolation import is_scripted
from saliency_widgets.runtime.reuse.survey import are_probabilities
from saliency_widgets.runtime.runner import Runner


def examine(runner: Runner) -> Checkup:
    """Inspect a model, run it a few times, and report what makes which method wrong or slow.

    This takes about one gradient and nine forward passes, plus a partial pass for each class activation map.

    Args:
        runner: The model, its inputs, and the score.
    """
    findings = list(of_modules(runner.passes.model))
    try:
        runner, coupling = runner.by_samples()
        findings += [_joint(note) for note in coupling]
        try:
            seen = observe(runner)
        except NeedsGradients:
            runner.passes.memory.by_hand = True
            seen = observe(runner)
    except (TypeError, ValueError) as error:
        return Checkup([*findings, broken(error)])
    for rule in _RULES:
        findings += rule(runner, seen)
    return Checkup(findings)


def _joint(note: str) -> Finding:
    return Finding(note, remedy="Read the map as the attribution of all rows together.", severity="caution")


def broken(error: Exception) -> Finding:
    """Return the finding that the model has no gradient, or that its forward pass fails."""
    what = str(error).removeprefix("model: ").rstrip(".")
    return Finding(
        f"No map can be computed: {what}.", remedy="Fix this first; the other checks need a working forward pass."
    )


# ---- rules for an observed pass


def _activations(runner: Runner, seen: Observation) -> Iterator[Finding]:
    recurrent = [path for path, module in runner.passes.model.named_modules() if isinstance(module, nn.RNNBase)]
    smooth = {**seen.smooth, **({"the gates": dict.fromkeys(recurrent)} if recurrent else {})}
    met = ", ".join(f"{name} ({_counted(places)})" for name, places in smooth.items())
    where = tuple(dict.fromkeys(path or "the model itself" for places in smooth.values() for path in places))
    if not seen.relus and not is_scripted(runner.passes.model):
        yield Finding(
            f"No ReLU ran{f', but {met}' if met else ''}: the rules for ReLUs do not apply.",
            where,
            needing("relu"),
            "Use 'gradient', 'smoothgrad' or 'integrated_gradients'.",
        )
    elif smooth:
        yield Finding(
            f"The rules for ReLUs do not apply to {met}: their plain gradient is used.",
            where,
            needing("relu"),
            "Read these maps as a mix of the ReLU rule and the gradient.",
            "caution",
        )


def _custom(_runner: Runner, seen: Observation) -> Iterator[Finding]:
    if seen.custom:
        yield Finding(
            f"The model has custom autograd functions ({', '.join(seen.custom)}): the rules for ReLUs don't apply to "
            f"ReLUs inside them.",
            methods=needing("relu"),
            remedy="If one of them is a ReLU, use torch.relu instead.",
            severity="caution",
        )


def _counted(places: dict[str, None]) -> str:
    return f"{len(places)} layer{'s' * (len(places) != 1)}"


def _spatial(runner: Runner, _seen: Observation) -> Iterator[Finding]:
    if runner.passes.joint:
        yield Finding(
            "Class activation maps need single inputs, but the rows of this batch are explained together.",
            methods=needing("layer"),
            remedy="Use a gradient method.",
        )
        return
    try:
        layers = spatial_layers(runner.passes, runner.graphs)
    except ValueError as error:  # a single sample fails, although a batch of several ran
        yield Finding(
            f"The model's batch size is fixed: it runs on {runner.batch} rows and fails on 1: "
            f"{cause_of(error.__cause__ or error)}.",
            methods=needing("layer"),
            remedy="Make the model accept any number of rows.",
        )
        return
    if not any(layer.default for layer in layers.values()):
        yield Finding(
            "No layer has a spatial output, so there are no class activation maps.",
            methods=needing("layer"),
            remedy="Use a gradient method, or pass layer= and reshape= if you know how a layer's output maps to the "
            "input.",
        )


def _one_sided(runner: Runner, _seen: Observation) -> Iterator[Finding]:
    """Report class activation maps without any positive value, which are empty when displayed as in their papers."""
    empty, layer = [], ()
    for name, entry in methods().items():
        if entry.sign != "positive" or "layer" not in entry.needs:
            continue
        try:
            *_, last = entry.run(runner, **entry.check_params({}))
        except (TypeError, ValueError):  # no suitable layer, which another rule reports
            return
        if unseen(last.values, entry.sign):
            empty.append(name)
            layer = () if last.layer is None else (last.layer,)
    if empty:
        yield Finding(
            "Class activation maps of this target are negative or zero everywhere, so with sign 'positive', their "
            "usual display, they are exactly zero.",
            layer,
            (*empty, *(["guided_grad_cam"] if "grad_cam" in empty else [])),
            "Choose sign='signed' or sign='negative', another layer, or another target.",
            "caution",
        )


def _output(runner: Runner, seen: Observation) -> Iterator[Finding]:
    scores = seen.scores
    if scores is not None and scores.dtype in HALF and runner.inputs.dtype not in HALF:
        yield Finding(
            f"The model switches to {str(scores.dtype).removeprefix('torch.')} (autocast): small gradients underflow.",
            remedy="Remove autocast from forward.",
            severity="caution",
        )
    if scores is None or scores.ndim not in (1, 2, 4):
        return
    scores = scores.double()
    several = scores.ndim > 1 and scores.shape[1] > 1
    what, taken = None, False
    if several and are_probabilities(scores):
        what, taken = "probabilities (they sum to 1): softmax is already applied", True
    elif several and bool((scores <= 0).all()) and are_probabilities(scores.exp()):
        what, taken = "log-probabilities: log_softmax is already applied", True
    elif seen.last == "sigmoid" and bool(((scores >= 0) & (scores <= 1)).all()):
        what, taken = "results of a sigmoid, between 0 and 1", not several
    scales = ("logit",) if taken else ("logit", "probability", "log_probability")
    if what is not None and runner.passes.score.scale in scales:
        twice = "" if taken else ", and 'probability' would apply the squashing twice"
        yield Finding(
            f"The model's outputs are {what}. The score 'logit' is not a logit{twice}.",
            remedy="Explain the model without its last layer, or pass score='value', which uses the output as it is.",
            severity="caution" if runner.passes.score.scale == "logit" else "wrong",
        )


def _cuts(_runner: Runner, seen: Observation) -> Iterator[Finding]:
    for kind, places in seen.cuts.items():
        said = {"detach": "detach() or .data", "rounding": "Rounding"}.get(kind, kind)
        yield Finding(
            f"{said} inside forward blocks the gradient: the values there affect the score, but no map shows it.",
            _paths(places),
            remedy="Remove it if the score depends on that tensor.",
            severity="caution",
        )


def _paths(places: dict[str, None]) -> tuple[str, ...]:
    return tuple(path or "the model itself" for path in places)


def _random(_runner: Runner, seen: Observation) -> Iterator[Finding]:
    if seen.random:
        yield Finding(
            "The model draws random numbers in eval mode (F.dropout without training=self.training, or noise). They "
            "are drawn from a fixed seed here, so a map is reproducible, but it shows one draw only.",
            _paths(seen.random),
            remedy="Pass training=self.training to the function, or remove the noise.",
            severity="caution",
        )


def _zeros(runner: Runner, seen: Observation) -> Iterator[Finding]:
    gradient = seen.gradient
    if gradient is None:
        return
    dead = ", dead ReLUs" if seen.relus else ""
    if not bool(gradient.any()):
        yield Finding(
            f"The gradient is exactly zero everywhere: the score is flat here (saturated{dead}, rounding).",
            remedy="Try score='logit', another target, or 'integrated_gradients', which covers the path from a "
            "baseline.",
        )
        return
    zero = (gradient == 0).flatten(1).all(0)
    share = float(zero.double().mean())
    if gradient.ndim == 2 and bool(zero.any()) and not runner.parts:
        columns = zero.nonzero()[:, 0].tolist()
        listed = ", ".join(map(str, columns[:8])) + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")
        yield Finding(
            f"The gradient of {len(columns)} of {len(zero)} inputs is exactly zero: number {listed}.",
            remedy="The model doesn't use them, or not for this input. Check with other inputs.",
            severity="caution",
        )
    elif share > _MUCH:
        yield Finding(
            f"The gradient of {share:.0%} of the inputs is exactly zero.",
            remedy=f"The model doesn't use them, or other values take precedence (cropping, strides, max "
            f"pooling{dead}).",
            severity="caution",
        )


_MUCH = 0.1


def _slopes(runner: Runner, seen: Observation) -> Iterator[Finding]:
    """Compare the gradient with differences of the score, because some of PyTorch's own backward passes are wrong."""
    off = [] if seen.slopes is None else [float(s) for s in seen.slopes if abs(s - 1) > _OFF]
    if off:
        scripted = [path or "the model itself" for path, m in runner.passes.model.named_modules() if is_script(m)]
        remedy = "Pass the original module, from before torch.jit, where known faults of PyTorch have workarounds."
        other = "Compare with a method that needs no gradient, such as 'captum.Occlusion'."
        yield Finding(
            f"The backward pass is wrong: finite differences of the score along its gradient are {off[0]:.2g} times "
            f"the slope that the gradient predicts.",
            tuple(scripted[:1]),
            remedy=remedy if scripted else other,
        )


_OFF = 0.2


def _coupled(runner: Runner, _seen: Observation) -> Iterator[Finding]:
    """Check whether a row's score depends on the other rows of the batch."""
    other = runner.inputs + 0.5 * runner.noise_scale() * normal_noise(runner.inputs, 0, range(1))[0]
    try:
        alone, again = runner.scores(runner.inputs), runner.scores(runner.inputs)
        together = runner.scores(torch.cat([runner.inputs, other]))[: runner.batch]
    except NotFinite:  # the scores of the perturbed inputs
        return
    except ValueError as error:
        if not str(error).startswith("model:"):
            yield Finding(
                f"The model runs on {runner.batch} row{'s' * (runner.batch > 1)} but not on {2 * runner.batch}: "
                f"{error!s}",
                methods=in_chunks(),
                remedy="Pass chunk_size=1.",
            )
            return
        yield Finding(
            f"The model's batch size is fixed: it runs on {runner.batch} rows and fails on {2 * runner.batch}: "
            f"{cause_of(error.__cause__ or error)}.",
            methods=in_chunks(),
            remedy="Make the model accept any number of rows, or pass chunk_size=1.",
        )
        return
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return
    if runner.passes.sharing.apart:
        yield Finding(
            runner.passes.sharing.apart,
            methods=in_chunks(),
            remedy="If this is intended, expect longer computations.",
            severity="caution",
        )
        return
    if not torch.equal(alone, again):
        yield Finding(
            f"The same input gives different scores, {float(alone[0]):.4g} and then {float(again[0]):.4g}: the model "
            f"draws random numbers from outside PyTorch, or stores state outside its modules.",
            remedy="Remove the randomness, or seed it inside forward; until then no map is reproducible.",
        )
        return
    # The tolerance is relative to the change by another input, plus an allowance for rounding.
    apart = (alone - runner.scores(other)).abs()
    rounding = 1e2 * torch.finfo(alone.dtype).eps * (1 + alone.abs())
    if bool(((alone - together).abs() > 1e-3 * apart + rounding).any()):
        yield Finding(
            f"The rows of a batch influence each other: the score goes from {float(alone[0]):.4g} to "
            f"{float(together[0]):.4g} together with other rows.",
            methods=in_chunks(),
            remedy="Call model.eval(); if that doesn't help (a softmax over the batch, for example), explain one "
            "sample at a time with chunk_size=1.",
        )


def _range(runner: Runner, seen: Observation) -> Iterator[Finding]:
    """Compare the inputs with the statistics of the first BatchNorm; without one, only recognize raw bytes."""
    largest = float(runner.inputs.abs().max())
    if seen.norm is not None:
        path, far, wide = seen.norm
        if far > _FAR or wide > _WIDE or wide < _FLAT:
            yield Finding(
                f"These inputs are far from the training data: at the model's first BatchNorm the means are {far:.1f} "
                f"standard deviations off, and the variance is {wide:.3g} times that of training.",
                (path,),
                remedy="Check transform=: are pixels scaled to [0, 1] and normalized as in training?",
            )
    elif _BYTES < largest <= 255 and float(runner.inputs.min()) >= 0 and runner.kind.drawn:
        yield Finding(
            f"The inputs go up to {largest:.0f}, as raw bytes do; most models expect values in [0, 1] or normalized.",
            remedy="Check transform=, or divide by 255.",
            severity="caution",
        )


def _input(runner: Runner, _seen: Observation) -> Iterator[Finding]:
    """Report what the kind of input warns of, and whether the score depends on features that it should ignore."""
    for what, remedy in runner.kind.cautions:
        yield Finding(what, remedy=remedy, severity="caution")
    ignored = runner.kind.ignored
    if ignored is None:
        return
    mask = runner.kind.broadcast(ignored.to(runner.inputs.device))
    with_it, without = runner.scores(runner.inputs), runner.scores(torch.where(mask, 0, runner.inputs))
    if bool(((with_it - without).abs() > _MOVED * (1 + with_it.abs())).any()):
        yield Finding(
            f"The score depends on the padding: with other values there, it goes from {float(with_it[0]):.4g} to "
            f"{float(without[0]):.4g}. Padding gets attribution, and a text has another map next to longer ones.",
            remedy="Let the model use attention_mask, or explain one text at a time.",
            severity="caution",
        )


_MOVED = 1e-4

_FAR, _WIDE, _FLAT, _BYTES = 4.0, 25.0, 1e-3, 30.0

_RULES: tuple[Callable[[Runner, Observation], Iterator[Finding]], ...] = (
    _activations,
    _custom,
    _spatial,
    _one_sided,
    _output,
    _cuts,
    _random,
    _zeros,
    _slopes,
    _coupled,
    _range,
    _input,
)
