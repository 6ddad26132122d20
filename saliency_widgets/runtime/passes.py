"""Single passes of the caller's model: isolated, interruptible, and split if memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.errors import ModelChanged
from saliency_widgets.attribution.input_parts import InputPart
from saliency_widgets.attribution.score import Score, is_function, logits_of, notes_on
from saliency_widgets.runtime.arguments import Arguments
from saliency_widgets.runtime.autograd import differentiate, finite
from saliency_widgets.runtime.batching import most_rows
from saliency_widgets.runtime.cancellation import interruptible
from saliency_widgets.runtime.forward import forward
from saliency_widgets.runtime.layers.hooks import Tap, watched
from saliency_widgets.runtime.memory import Memory, Sharing
from saliency_widgets.runtime.model.isolation import clone_weights, freeze, has_private_weights, isolated, rebind, thaw
from saliency_widgets.runtime.model.model_copy import Copies, ModelCopy
from saliency_widgets.runtime.precision import computing
from saliency_widgets.runtime.reuse.fusion import Tuned, has_hooks

Gradient = tuple[Tensor, Tensor]
"""The gradient of scores with respect to rows, and the scores."""


def never_cancel() -> None:
    """Do nothing: the check of a computation that can't be cancelled."""


@dataclass(frozen=True)
class Passes:
    """A model, its inputs and one score per sample, with the settings for running passes.

    Attributes:
        model: The caller's model. It is copied, never run or changed itself.
        inputs: The explained tensor, shape (B, ...), on the model's device and of its type. Several inputs that are
            explained together are flattened and concatenated, (B, F): see :mod:`~.arguments`.
        score: The function from the model's output to one number per row.
        check: Raises :class:`~saliency_widgets.attribution.errors.Cancelled` when the result is no longer wanted;
            called before each pass and inside it.
        arguments: How the model is called with the inputs.
        memory: The number of rows that fit into one pass.
        sharing: Whether rows may share a pass.
        tuned: Weights and memory layout that give the same numbers faster; None if there are none.
        precision: The numerical precision of passes: see :mod:`~.precision`.
        copies: The model's copies; those of another model are not used.
        joint: Whether the rows that the model takes are parts of one sample, such as the nodes of a graph. Then
            ``inputs`` has shape (1, rows, ...), one pass covers one sample, and its score is that of all rows.
    """

    model: nn.Module
    inputs: Tensor
    score: Score
    check: Callable[[], None] = never_cancel
    arguments: Arguments | None = None
    memory: Memory = field(default_factory=Memory)
    sharing: Sharing = field(default_factory=Sharing)
    tuned: Tuned | None = None
    precision: str | None = None
    joint: bool = False
    copies: Copies = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.copies is None or self.copies.model is not self.model:
            object.__setattr__(self, "copies", Copies(self.model))

    @property
    def batch(self) -> int:
        """B, the number of samples."""
        return self.inputs.shape[0]

    @property
    def parts(self) -> tuple[InputPart, ...]:
        """The inputs that are explained together; empty if there is only one."""
        return self.call.several

    @property
    def size(self) -> tuple[int, int] | None:
        """The height and width of the explained image; None if no image is explained."""
        shapes = [part.shape for part in self.parts] or [tuple(self.inputs.shape[1:])]
        return next(((shape[1], shape[2]) for shape in shapes if len(shape) == 3), None)

    @property
    def call(self) -> Arguments:
        """The arguments of the model; by default, the explained input alone."""
        return self.arguments or Arguments(batch=self.batch)

    @property
    def plain(self) -> Passes:
        """The same passes without tuned weights and layout, for code that inspects layers."""
        return replace(self, tuned=None)

    def showing(self, layer: str) -> Passes:
        """Return passes in which a layer has the same output as in the caller's model: see :meth:`Tuned.shows`."""
        return self if self.tuned is None or self.tuned.shows(layer) else self.plain

    @property
    def inspected(self) -> bool:
        """Whether other code observes each pass: a function mode, such as a method's backward rule, or a hook.

        A target that is a function counts too, because it may read values that a hook stored.
        """
        return is_function(self.score.target) or bool(torch._C._len_torch_function_stack()) or has_hooks(self.model)

    def alone(self, part: InputPart) -> Passes:
        """Return passes that explain one of several inputs and hold the others."""
        arguments, inputs = self.call.alone(part, self.inputs)
        return replace(self, inputs=inputs, arguments=arguments)

    def on(self, rows: Tensor) -> Passes:
        """Return the same passes for other inputs, shape (K * B, ...)."""
        if self.joint:
            return replace(self, inputs=rows)
        times = rows.shape[0] // self.batch
        return replace(self, inputs=rows, score=self.score.tiled(times), arguments=self.call.tiled(times))

    def rows_per_pass(self, chunk_size: int | None) -> int:
        """Return the rows of one pass: ``chunk_size``, or by default the usual number for the device."""
        if self.joint or self.sharing.apart:  # rows that influence each other would also influence copies
            return 1
        return most_rows(self.inputs.device) if chunk_size is None else chunk_size

    def split(self, rows: Tensor) -> list[Tensor]:
        """Split rows of the tensor that methods see into the explained inputs, each in its own shape and type."""
        return self.call.split(rows)

    def run(self, work: Callable[[range], tuple[Tensor, ...]], rows: int) -> tuple[Tensor, ...]:
        """Run a computation for all rows, in as few passes as memory and sharing allow: see :meth:`Memory.run`."""
        return self.memory.run(work, rows, singly=bool(self.sharing.apart))

    def scores(self, inputs: Tensor, seed: int = 0) -> Tensor:
        """Return the scores of K * B rows, shape (K * B,), without gradients; ``seed`` seeds random draws."""

        def work(rows: range) -> tuple[Tensor]:
            with self.isolated(seed, tuned=True) as model, torch.no_grad():
                return (finite(self.score_rows(model, inputs[rows.start : rows.stop], rows), "score").detach(),)

        return self.run(work, inputs.shape[0])[0]

    def outcomes(self, inputs: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return the scores of K * B rows, shape (K * B,), and the class scores in the output, (K * B, classes).

        Neither has gradients. If a function target reads an output without class scores, the scores replace them.
        """

        def work(rows: range) -> tuple[Tensor, Tensor]:
            with self.isolated(seed, tuned=True) as model, torch.no_grad():
                output = self.output(model, inputs[rows.start : rows.stop], rows)
                scores = finite(self.scores_from(output, rows, model), "score").detach()
                try:
                    return scores, logits_of(output, len(rows), self._positions(rows)).detach()
                except (TypeError, ValueError):
                    return scores, scores[:, None]

        scores, logits = self.run(work, inputs.shape[0])
        return scores, logits

    def gradient(
        self, inputs: Tensor, run: Callable[[Passes, Tensor, Callable[[], Gradient]], Gradient] | None = None
    ) -> Gradient:
        """Return the gradient of the score with respect to the inputs.

        Args:
            inputs: K * B rows, shape (K * B, ...).
            run: An alternative computation of a pass, from the passes of its rows, the rows, and the default one.

        Returns:
            The gradients, of the same shape, and the scores, shape (K * B,).

        Raises:
            ValueError: The model failed, or its score doesn't depend on the inputs or isn't finite.
        """

        def work(rows: range) -> Gradient:
            part = inputs[rows.start : rows.stop]

            def compute() -> Gradient:
                with self.isolated(tuned=True) as model:
                    leaf = part.detach().requires_grad_(True)
                    scores = self.score_rows(model, leaf, rows)
                    return self.differentiate(model, scores, leaf).contiguous(), scores.detach()

            if run is None:
                return compute()
            return run(replace(self, inputs=part, score=self.score.of(_samples(rows, self.batch))), part, compute)

        gradients, scores = self.run(work, inputs.shape[0])
        return gradients, scores

    def layer_gradient(self, layer: str) -> tuple[Tensor, Tensor, Tensor, int]:
        """Return the activation of a layer for the inputs, and the gradient of the score with respect to it.

        Only the part of the model after the layer is differentiated. If a layer runs several times, the last run is
        used; in a model of several inputs, the last run that depends on the explained input. If a layer returns several
        tensors, the first one is used.

        Args:
            layer: The name of the layer: see :mod:`~saliency_widgets.runtime.layers.hooks`.

        Returns:
            Activation and gradient, both of the layer's output shape, the scores, shape (B,), and the number of runs.

        Raises:
            ValueError: The layer doesn't run, returns no tensor, or the score doesn't depend on it.
        """
        several, runs = self.arguments is not None, 0
        passes = self.showing(layer)

        def work(rows: range) -> tuple[Tensor, Tensor, Tensor]:
            nonlocal runs
            inputs = self.inputs[rows.start : rows.stop]
            with passes.isolated(tuned=True) as model, Tap(model, layer, dependent=several) as tap:
                scores = passes.score_rows(model, inputs.detach().requires_grad_(True) if several else inputs, rows)
                activation, runs = tap.leaf, tap.runs
                gradient = self.differentiate(model, scores, activation, what=f"layer {layer!r}")
                return activation.detach(), gradient, scores.detach()

        activation, gradient, scores = self.run(work, self.batch)
        return activation, gradient, scores, runs

    def logits(self) -> tuple[Tensor, tuple[str, ...]]:
        """Return the model's class scores of the inputs, shape (B, K), on the host, and notes on how they were read.

        Raises:
            TypeError: The model's output holds no tensor.
            ValueError: The model failed, or its output has an unsupported form.
        """
        notes: tuple[str, ...] = ()

        def work(rows: range) -> tuple[Tensor]:
            nonlocal notes
            with self.isolated() as model, torch.no_grad():
                logits, notes = self.read(model, rows)[1:]
                return (logits,)

        return self.run(work, self.batch)[0], notes

    def read(self, model: nn.Module, rows: range) -> tuple[Any, Tensor, tuple[str, ...]]:
        """Return a copy's output for some of the inputs, the class scores in it, and notes on these.

        The class scores are on the host, so that reading them several times synchronizes the device only once.
        """
        with self.memory.timed(len(rows)):
            output = self.output(model, self.inputs[rows.start : rows.stop], rows)
        logits = logits_of(output, len(rows), self._positions(rows)).detach().cpu()
        # NaN in any class is an error; a class that is masked out with -inf is not.
        finite(logits.nan_to_num(nan=float("nan"), posinf=0.0, neginf=0.0), "score")
        return output, logits, notes_on(output, len(rows))

    def _positions(self, rows: Sequence[int]) -> Tensor | None:
        position = self.score.position
        return None if position is None else position[_samples(rows, self.batch)]

    def watch(
        self,
        seen: Callable[[str, Any], None],
        around: Callable[[Tensor], AbstractContextManager[Any]] = nullcontext,
        sample: int = 0,
    ) -> Any:
        """Run the model once on one sample, and report each layer's output as the layer finishes.

        Args:
            seen: A function called with each layer's name and output.
            around: A function from the sample to a context manager that the pass runs in.
            sample: The index of the sample.

        Returns:
            The model's output.
        """
        leaf = self.inputs[sample : sample + 1].detach().requires_grad_(True)
        with self.isolated() as model, around(leaf), watched(model, seen):
            return self.plain.output(model, leaf, range(sample, sample + 1))

    @contextmanager
    def lend(
        self, sample: int | None, seed: int
    ) -> Iterator[tuple[nn.Module, dict[int, Any], Callable[[Sequence[Tensor]], Tensor]]]:
        """Lend a copy to third-party code, which may run it many times, hook it and change it.

        Args:
            sample: The index of the explained sample; None for all samples, block by block.
            seed: The seed of the random numbers that torch draws.

        Yields:
            The copy, with separate weights; a mapping from the ids of the model's objects to their counterparts in the
            copy; and a function from N variants of the sample, a tensor (N, ...) for each explained input, to their
            scores, shape (N,).
        """
        copied = ModelCopy(self.model)
        with self._isolated(nullcontext(copied), self.copies.version.glance(), seed) as model:
            clone_weights(model)

            def score(variants: Sequence[Tensor]) -> Tensor:
                self.check()
                first, step = (0, 1) if sample is None else (sample, self.batch)
                rows = range(first, first + len(variants[0]) * step, step)
                return finite(self.plain.score_rows(model, variants, rows), "score")

            yield model, {key: made for key, (_, made) in copied.memo.items()}, score

    def isolated(self, seed: int = 0, *, tuned: bool = False) -> AbstractContextManager[nn.Module]:
        """Return a context for a pass of a copy of the model, with gradients enabled: see :func:`~.isolation.isolated`.

        Only the inputs require a gradient. The copy's parameters are separate objects with the same numbers, so that a
        forward that replaces the data of a parameter doesn't replace the caller's.

        Args:
            seed: The seed of the random numbers.
            tuned: Whether only the output is used, so that tuned weights may compute it.
        """
        number = self.copies.version.glance()
        if self.memory.by_hand:
            return self._isolated(nullcontext(ModelCopy(self.model, thaw)), number, seed)
        if tuned and self.tuned is not None:
            return self._isolated(self.copies.lend(number, self.tuned, self.tuned.put_into), number, seed)
        return self._isolated(self.copies.lend(number, None, freeze), number, seed)

    @contextmanager
    def _isolated(self, lent: AbstractContextManager[ModelCopy], number: int, seed: int) -> Iterator[nn.Module]:
        self.check()
        self.memory.passes += 1
        with lent as copied, isolated(copied, self.model, seed) as model, ExitStack() as inside:
            inside.enter_context(computing(self.precision, self.inputs.device))
            if self.check is not never_cancel:
                inside.enter_context(interruptible(self.check))
            try:
                yield model
            except ValueError as error:
                if self.copies.version.glance() != number:
                    raise ModelChanged(
                        "model: its weights changed while the map was computed (is it being trained in another cell?). "
                        "Try again when training has finished."
                    ) from error
                raise

    def differentiate(self, model: nn.Module, scores: Tensor, leaf: Tensor, what: str = "inputs") -> Tensor:
        """Return the gradient of the scores of a pass: see :func:`~.autograd.differentiate`."""
        return differentiate(model, scores, leaf, what, by_hand=self.memory.by_hand and has_private_weights(model))

    def score_rows(self, model: nn.Module, inputs: Tensor | Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        """Return the scores of some rows, which have the indices ``rows`` in a batch of K * B."""
        if self.joint and len(rows) > 1:
            each = [self.score_rows(model, inputs[k : k + 1], rows[k : k + 1]) for k in range(len(rows))]
            return torch.cat(each)
        return self.scores_from(self.output(model, inputs, rows), rows, model)

    def scores_from(self, output: Any, rows: Sequence[int], model: nn.Module) -> Tensor:
        """Return the scores from a copy's output for some rows."""
        score = self.score if self.joint else self.score.of(_samples(rows, self.batch))
        if is_function(score.target):  # it may read values that a hook of the caller stored
            score = replace(score, target=rebind(model, score.target))
        return self.widen(score.total(output, self.inputs.shape[1]) if self.joint else score(output, len(rows)))

    def widen(self, scores: Tensor) -> Tensor:
        """Return scores in the type of the result, independent of the type that passes compute in."""
        return scores.to(self.inputs.dtype) if self.precision == "bfloat16" else scores

    def output(self, model: nn.Module, inputs: Tensor | Sequence[Tensor], rows: Sequence[int]) -> Any:
        """Return a copy's output for some rows (or explained inputs one by one): see :meth:`score_rows`."""
        laid = self.tuned is not None and self.tuned.channels_last
        samples = _samples(rows, self.batch)
        if self.joint:
            inputs, samples = inputs[0], torch.arange(inputs[0].shape[0], device="cpu")
        return forward(model, partial(self.call.run, channels_last=laid), inputs, samples, self.memory)


def _samples(rows: Sequence[int], batch: int) -> Tensor:
    span = isinstance(rows, range)
    numbers = torch.arange(rows.start, rows.stop, rows.step, device="cpu") if span else torch.tensor(rows, device="cpu")
    return numbers % batch
