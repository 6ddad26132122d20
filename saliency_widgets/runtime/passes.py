"""Single passes of the caller's model: isolated, interruptible, and split where memory is short."""

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


def _never() -> None:
    """The check of a computation that nobody can cancel."""


@dataclass(frozen=True)
class Passes:
    """A model, inputs and one score per sample, and how a pass of them is run.

    Attributes:
        model: The caller's model. It is copied, never run or changed itself.
        inputs: Shape (B, ...), on the model's device and of its type; several inputs that are explained together lie
            side by side, (B, F), see :mod:`~.arguments`.
        score: From the model's output to one number per row.
        check: Raises :class:`~saliency_widgets.attribution.errors.Cancelled` when the result is no longer wanted;
            called before each pass and inside it.
        arguments: How the model is called with the inputs.
        memory: How many rows fit into one pass.
        sharing: Whether rows may share a pass.
        tuned: What gives the same numbers sooner; None where nothing does.
        precision: How exactly passes are computed: see :mod:`~.precision`.
        copies: The model's copies; those of another model are not used.
        joint: Whether the rows that the model takes are parts of one sample, such as the nodes of a graph: ``inputs``
            has shape (1, rows, ...) then, one pass is about one sample, and its score is that of all rows.
    """

    model: nn.Module
    inputs: Tensor
    score: Score
    check: Callable[[], None] = _never
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
        """The inputs that are explained together; empty where it is one."""
        return self.call.several

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the image that is explained; None where there is none."""
        shapes = [part.shape for part in self.parts] or [tuple(self.inputs.shape[1:])]
        return next(((shape[1], shape[2]) for shape in shapes if len(shape) == 3), None)

    @property
    def call(self) -> Arguments:
        """How the model is called; without arguments of its own, with the explained input alone."""
        return self.arguments or Arguments(batch=self.batch)

    @property
    def plain(self) -> Passes:
        """The same passes, computed as the model is written: for those who look inside."""
        return replace(self, tuned=None)

    def showing(self, layer: str) -> Passes:
        """The same passes, computed so that a layer gives what it gives in the model: see :meth:`Tuned.shows`."""
        return self if self.tuned is None or self.tuned.shows(layer) else self.plain

    @property
    def inspected(self) -> bool:
        """Whether somebody wants to see each pass: a mode of the caller's or of a method's (a backward rule), a hook.

        A target that is a function may read what a hook has kept.
        """
        return is_function(self.score.target) or bool(torch._C._len_torch_function_stack()) or has_hooks(self.model)

    def alone(self, part: InputPart) -> Passes:
        """Passes in which one of several inputs is explained and the others are held."""
        arguments, inputs = self.call.alone(part, self.inputs)
        return replace(self, inputs=inputs, arguments=arguments)

    def on(self, rows: Tensor) -> Passes:
        """The same passes for other inputs, shape (K * B, ...)."""
        if self.joint:
            return replace(self, inputs=rows)
        times = rows.shape[0] // self.batch
        return replace(self, inputs=rows, score=self.score.tiled(times), arguments=self.call.tiled(times))

    def rows_per_pass(self, chunk_size: int | None) -> int:
        """Rows of one pass: as asked, or what suits the device."""
        if self.joint or self.sharing.apart:  # what ties the rows together would tie copies of them to the first
            return 1
        return most_rows(self.inputs.device) if chunk_size is None else chunk_size

    def split(self, rows: Tensor) -> list[Tensor]:
        """The explained inputs in rows of the tensor that methods see, each in its own shape and type."""
        return self.call.split(rows)

    def run(self, work: Callable[[range], tuple[Tensor, ...]], rows: int) -> tuple[Tensor, ...]:
        """Do the work for all rows, in as few passes as fit and as rows may share: see :meth:`Memory.run`."""
        return self.memory.run(work, rows, singly=bool(self.sharing.apart))

    def scores(self, inputs: Tensor, seed: int = 0) -> Tensor:
        """The scores of K * B rows, shape (K * B,), without gradients; ``seed`` is of what the model draws."""

        def work(rows: range) -> tuple[Tensor]:
            with self.isolated(seed, tuned=True) as model, torch.no_grad():
                return (finite(self.score_rows(model, inputs[rows.start : rows.stop], rows), "score").detach(),)

        return self.run(work, inputs.shape[0])[0]

    def outcomes(self, inputs: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The scores of K * B rows, shape (K * B,), and the class scores in the model's output, (K * B, classes).

        Without gradients. Where a target that is a function reads an output without class scores, these are its own.
        """

        def work(rows: range) -> tuple[Tensor, Tensor]:
            with self.isolated(seed, tuned=True) as model, torch.no_grad():
                output = self.output(model, inputs[rows.start : rows.stop], rows)
                scores = finite(self.scores_from(output, rows, model), "score").detach()
                try:
                    return scores, logits_of(output, len(rows)).detach()
                except (TypeError, ValueError):
                    return scores, scores[:, None]

        scores, logits = self.run(work, inputs.shape[0])
        return scores, logits

    def gradient(
        self, inputs: Tensor, run: Callable[[Passes, Tensor, Callable[[], Gradient]], Gradient] | None = None
    ) -> Gradient:
        """The gradient of the score with respect to the inputs.

        Args:
            inputs: K * B rows, shape (K * B, ...).
            run: Computes a pass in another way: given the passes of its rows, the rows, and how it is computed here.

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
        """The activation of a layer for the inputs, and the gradient of the score with respect to it.

        Only the part of the model behind the layer is differentiated. Of a layer that runs several times, the
        last run counts, and of a model of several inputs the last that depends on the explained one; of a layer that
        returns several tensors, the first.

        Args:
            layer: Where: see :mod:`~saliency_widgets.runtime.layers.hooks`.

        Returns:
            Activation and gradient, both of the layer's output shape, the scores, shape (B,), and how often it ran.

        Raises:
            ValueError: The layer doesn't run, gives no tensor, or the score doesn't depend on it.
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
        """The model's class scores of the inputs, shape (B, K), on the host; and what to know of how they were found.

        Raises:
            TypeError: The model's output holds no tensor.
            ValueError: The model failed, or its output has another form.
        """
        notes: tuple[str, ...] = ()

        def work(rows: range) -> tuple[Tensor]:
            nonlocal notes
            with self.isolated() as model, torch.no_grad():
                logits, notes = self.read(model, rows)[1:]
                return (logits,)

        return self.run(work, self.batch)[0], notes

    def read(self, model: nn.Module, rows: range) -> tuple[Any, Tensor, tuple[str, ...]]:
        """What a copy returns for some of the inputs, the class scores in it, and what to know of these.

        The class scores are on the host: whoever reads them asks several things, and a device is waited for once.
        """
        with self.memory.timed(len(rows)):
            output = self.output(model, self.inputs[rows.start : rows.stop], rows)
        logits = logits_of(output, len(rows)).detach().cpu()
        # NaN in any class is an error; a class that is masked out with -inf is none.
        finite(logits.nan_to_num(nan=float("nan"), posinf=0.0, neginf=0.0), "score")
        return output, logits, notes_on(output, len(rows))

    def watch(
        self,
        seen: Callable[[str, Any], None],
        around: Callable[[Tensor], AbstractContextManager[Any]] = nullcontext,
        sample: int = 0,
    ) -> Any:
        """Run the model once on one sample, and show each layer's output as it finishes.

        Args:
            seen: Called with the layer's name and the output.
            around: From the sample to a context that the pass runs in.
            sample: Which.

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
        """For code that is not ours, which may run a model, hook it and change it: many passes with one copy.

        Args:
            sample: Which sample it is about; None for all, block by block.
            seed: Of the random numbers that torch draws.

        Yields:
            The copy, with weights of its own; which object of the model, by its id, became which of the copy's; and a
            function from N variants of the sample, a tensor (N, ...) for each explained input, to their scores, shape
            (N,).
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
        """A pass: a copy of the model, with gradients on, see :func:`~.isolation.isolated`.

        Nothing but the inputs needs a gradient: its parameters are its own and hold the same numbers, so that a forward
        that exchanges the data of one doesn't exchange the caller's.

        Args:
            seed: Of the random numbers.
            tuned: Whether only the output is looked at, so that it may be computed with other weights.
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
            if self.check is not _never:
                inside.enter_context(interruptible(self.check))
            try:
                yield model
            except ValueError as error:
                if self.copies.version.glance() != number:
                    raise ModelChanged(
                        "model: its weights changed while the map was computed (is it being trained in another cell?). "
                        "Ask again when it rests."
                    ) from error
                raise

    def differentiate(self, model: nn.Module, scores: Tensor, leaf: Tensor, what: str = "inputs") -> Tensor:
        """The gradient of the scores of a pass: see :func:`~.autograd.differentiate`."""
        return differentiate(model, scores, leaf, what, by_hand=self.memory.by_hand and has_private_weights(model))

    def score_rows(self, model: nn.Module, inputs: Tensor | Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        """The scores of some rows, which have these numbers in a batch of K * B."""
        if self.joint and len(rows) > 1:
            each = [self.score_rows(model, inputs[k : k + 1], rows[k : k + 1]) for k in range(len(rows))]
            return torch.cat(each)
        return self.scores_from(self.output(model, inputs, rows), rows, model)

    def scores_from(self, output: Any, rows: Sequence[int], model: nn.Module) -> Tensor:
        """The scores in what a copy returned for some rows."""
        score = self.score if self.joint else self.score.of(_samples(rows, self.batch))
        if is_function(score.target):  # it may read what a hook of the caller's has kept
            score = replace(score, target=rebind(model, score.target))
        return self.widen(score.total(output, self.inputs.shape[1]) if self.joint else score(output, len(rows)))

    def widen(self, scores: Tensor) -> Tensor:
        """Scores in the type of the result, whatever the passes compute in."""
        return scores.to(self.inputs.dtype) if self.precision == "bfloat16" else scores

    def output(self, model: nn.Module, inputs: Tensor | Sequence[Tensor], rows: Sequence[int]) -> Any:
        """What the copy returns for some rows (or explained inputs one by one), see :meth:`score_rows`."""
        laid = self.tuned is not None and self.tuned.channels_last
        samples = _samples(rows, self.batch)
        if self.joint:
            inputs, samples = inputs[0], torch.arange(inputs[0].shape[0], device="cpu")
        fill = partial(self.call.fill, channels_last=laid)
        return forward(model, fill, inputs, samples, self.memory)


def _samples(rows: Sequence[int], batch: int) -> Tensor:
    span = isinstance(rows, range)
    numbers = torch.arange(rows.start, rows.stop, rows.step, device="cpu") if span else torch.tensor(rows, device="cpu")
    return numbers % batch
