"""What a method sees of the model: one score per sample, and its gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from saliency_widgets.attribution.baselines import PixelRange
from saliency_widgets.attribution.columns import Columns
from saliency_widgets.attribution.score import Score, is_function, logits_of, notes_on
from saliency_widgets.runtime.arguments import Arguments, Part
from saliency_widgets.runtime.autograd import differentiate, finite
from saliency_widgets.runtime.batching import chunks, most_rows
from saliency_widgets.runtime.cancellation import interruptible
from saliency_widgets.runtime.coupling import Sharing, why_apart
from saliency_widgets.runtime.errors import ModelChanged
from saliency_widgets.runtime.forward import forward
from saliency_widgets.runtime.layers.hooks import Tap, watched
from saliency_widgets.runtime.memory import Memory
from saliency_widgets.runtime.model.isolation import (
    beside,
    freeze,
    modules_of,
    own_weights,
    owns_weights,
    stand_in,
    thaw,
)
from saliency_widgets.runtime.precision import computing
from saliency_widgets.runtime.reuse.cuda_graphs import Replays
from saliency_widgets.runtime.reuse.fusion import Tuned, has_hooks
from saliency_widgets.runtime.reuse.graph_cache import Kept, of_inputs, of_layer, once

T = TypeVar("T")


def _never() -> None:
    """The check of a computation that nobody can cancel."""


@dataclass(frozen=True)
class Call:
    """A model bound to inputs and to one score per sample.

    Methods that evaluate many variants of the inputs pass batches of K * B rows: the B samples repeated block by
    block, each row scored as its sample.

    Attributes:
        model: The caller's model. It is run, never changed.
        inputs: What is explained, shape (B, ...), on the model's device and of its type; several inputs that are
            explained together lie side by side, (B, F), see :mod:`~saliency_widgets.runtime.arguments`.
        score: From its output to one number per row.
        pixels: What black and white look like to it; None where nothing tells.
        check: Raises :class:`~.errors.Cancelled` when the result is no longer wanted; called before each pass.
        arguments: How the model is called with them.
        memory: How many rows fit into one pass.
        sharing: Whether rows may share a pass.
        tuned: What gives the same numbers sooner; None where nothing does.
        kept: What single passes gave before, for this question to this method: see :meth:`once`.
        recordings: Passes of the inputs with their graphs, for any question about them.
        precision: How exactly passes are computed: see :mod:`~.precision`.
        replays: Passes recorded as CUDA graphs: see :mod:`~.cuda_graphs`.
        columns: Of the table that the inputs are rows of; None where they are none.
        joint: Whether the rows that the model takes are parts of one sample, such as the nodes of a graph: ``inputs``
            has shape (1, rows, ...) then, one pass is about one sample, and its score is that of all rows.
    """

    model: nn.Module
    inputs: Tensor
    score: Score
    pixels: PixelRange | None = None
    check: Callable[[], None] = _never
    arguments: Arguments | None = None
    memory: Memory = field(default_factory=Memory)
    sharing: Sharing = field(default_factory=Sharing)
    tuned: Tuned | None = None
    kept: Kept | None = None
    recordings: Kept | None = None
    precision: str | None = None
    replays: Replays | None = None
    columns: Columns | None = None
    joint: bool = False

    @property
    def batch(self) -> int:
        """B, the number of samples."""
        return self.inputs.shape[0]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The inputs that are explained together; empty where it is one."""
        return self._arguments.several

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the picture that is explained; None where there is none."""
        shapes = [part.shape for part in self.parts] or [tuple(self.inputs.shape[1:])]
        return next(((shape[1], shape[2]) for shape in shapes if len(shape) == 3), None)

    @property
    def _arguments(self) -> Arguments:
        return self.arguments or Arguments(batch=self.batch)

    @property
    def plain(self) -> Call:
        """The same question, computed as the model is written: for those who look inside."""
        return replace(self, tuned=None, recordings=None, replays=None)

    def showing(self, layer: str) -> Call:
        """The same question, computed so that a layer gives what it gives in the model: see :meth:`Tuned.shows`."""
        return self if self.tuned is None or self.tuned.shows(layer) else self.plain

    @property
    def looked_into(self) -> bool:
        """Whether somebody wants to see each pass: a mode of the caller's or of a method's (a backward rule), a hook.

        A target that is a function may read what a hook has kept.
        """
        return is_function(self.score.target) or bool(torch._C._len_torch_function_stack()) or has_hooks(self.model)

    def alone(self, part: Part) -> Call:
        """The same question about one of several inputs that are explained together; the others are held."""
        arguments, inputs = self._arguments.alone(part, self.inputs)
        return replace(self, inputs=inputs, arguments=arguments, pixels=part.pixels, kept=None, recordings=None)

    def rows(self, chunk_size: int | None) -> int:
        """Rows of one pass: as asked, or what suits the device."""
        if self.joint or self.sharing.apart:  # what ties the rows together would tie copies of them to the first
            return 1
        return most_rows(self.inputs.device) if chunk_size is None else chunk_size

    def chunks(self, total: int, chunk_size: int | None, first: Sequence[int] = (1, 3)) -> list[range]:
        """So many evaluations of each sample in passes: see :func:`~.batching.chunks`."""
        rows = self.rows(chunk_size)
        return chunks(total, rows, self.batch, first, spare=rows // 8 if chunk_size is None else 0)

    def on(self, inputs: Tensor) -> Call:
        """The same question about other inputs of shape (K * B, ...)."""
        if self.joint:
            return replace(self, inputs=inputs)
        self.look_at(inputs)
        times = inputs.shape[0] // self.batch
        return replace(
            self, inputs=inputs, score=self.score.tiled(times), arguments=self._arguments.tiled(times),
            kept=None, recordings=None,
        )  # fmt: skip

    def look_at(self, copies: Tensor) -> None:
        """Look, once, whether copies of the one sample may share a pass: see :func:`~.coupling.why_apart`."""
        if self.sharing.apart is None and len(copies) > self.batch == 1 and not self.joint:
            look = replace(self, memory=copy.copy(self.memory), sharing=Sharing(""))
            self.sharing.apart = why_apart(look, copies)

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """What one pass gives, kept from before or computed now: for work that a larger setting continues.

        Args:
            key: Which pass it is, among those of this question to this method; everything that the result depends on
                besides the method's parameters, but for those that are marked as continued.
            work: Gives tensors that nobody writes to, in tuples or alone, or a number.
        """
        return once(self.kept, key, work)

    def baseline(self, value: Any, seed: int) -> Tensor:
        """The baseline of each sample: see :func:`~saliency_widgets.attribution.baselines.baseline_of`.

        Of several inputs that are explained together, each has its own; a mapping gives them by name, a tuple in order.
        """
        return self._arguments.baseline(value, self.inputs, seed, pixels=self.pixels, columns=self.columns)

    def named_baseline(self, value: Any) -> Any:
        """A baseline as settings say it: see :meth:`~.arguments.Arguments.named_baseline`."""
        return self._arguments.named_baseline(value, pixels=self.pixels, columns=self.columns)

    @property
    def baselines(self) -> tuple[str, ...]:
        """The names of the baselines that mean something for these inputs, the default first."""
        return self._arguments.baselines(self.inputs, pixels=self.pixels, columns=self.columns)

    def split(self, rows: Tensor) -> list[Tensor]:
        """The explained inputs in rows of the tensor that methods see, each in its own shape and type."""
        return self._arguments.split(rows)

    def spread(self) -> Tensor:
        """The range max - min of each sample's inputs, broadcastable to them; of each of several inputs its own.

        Of rows with a background, each feature's range there.
        """
        return self._arguments.spread(self.inputs, None if self.columns is None else self.columns.spread())

    def logits(self) -> tuple[Tensor, tuple[str, ...]]:
        """The model's class scores of the inputs, shape (B, K), and what to know of how they were found.

        Raises:
            TypeError: The model's output holds no tensor.
            ValueError: The model failed, or its output has another form.
        """
        notes: tuple[str, ...] = ()

        def work(rows: range) -> tuple[Tensor]:
            nonlocal notes
            with self.standing_in() as model, torch.no_grad():
                logits, notes = self.read(model, rows)[1:]
                return (logits,)

        return self.run(work, self.batch)[0], notes

    def read(self, model: nn.Module, rows: range) -> tuple[Any, Tensor, tuple[str, ...]]:
        """What a stand-in returns for some of the inputs, the class scores in it, and what to know of these."""
        with self.memory.timed(len(rows)):
            output = self.output(model, self.inputs[rows.start : rows.stop], rows)
        logits = logits_of(output, len(rows)).detach()
        # NaN in any class is an error; a class that is masked out with -inf is none.
        finite(logits.nan_to_num(nan=float("nan"), posinf=0.0, neginf=0.0), "score")
        return output, logits, notes_on(output, len(rows))

    def run(self, work: Callable[[range], tuple[Tensor, ...]], rows: int) -> tuple[Tensor, ...]:
        """Do the work for all rows, in as few passes as fit and as rows may share: see :meth:`Memory.run`."""
        return self.memory.run(work, rows, singly=bool(self.sharing.apart))

    def scores(self, inputs: Tensor, seed: int = 0) -> Tensor:
        """The scores of K * B rows, shape (K * B,), without gradients; ``seed`` is of what the model draws."""

        def work(rows: range) -> tuple[Tensor]:
            with self.standing_in(seed, tuned=True) as model, torch.no_grad():
                return (finite(self.scored(model, inputs[rows.start : rows.stop], rows), "score").detach(),)

        self.look_at(inputs)
        return self.run(work, inputs.shape[0])[0]

    def outcomes(self, inputs: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The scores of K * B rows, shape (K * B,), and the class scores in the model's output, (K * B, classes).

        Without gradients. Where a target that is a function reads an output without class scores, these are its own.
        """

        def work(rows: range) -> tuple[Tensor, Tensor]:
            with self.standing_in(seed, tuned=True) as model, torch.no_grad():
                output = self.output(model, inputs[rows.start : rows.stop], rows)
                scores = finite(self.told(output, rows, model), "score").detach()
                try:
                    return scores, logits_of(output, len(rows)).detach()
                except (TypeError, ValueError):
                    return scores, scores[:, None]

        self.look_at(inputs)
        scores, logits = self.run(work, inputs.shape[0])
        return scores, logits

    def gradient(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the score with respect to the inputs.

        Args:
            inputs: K * B rows, shape (K * B, ...).

        Returns:
            The gradients, of the same shape, and the scores, shape (K * B,).

        Raises:
            ValueError: The model failed, or its score doesn't depend on the inputs or isn't finite.
        """
        if inputs is self.inputs:
            found = of_inputs(self)
            if found is not None:
                return found[1].contiguous(), found[2]

        def work(rows: range) -> tuple[Tensor, Tensor]:
            some = inputs[rows.start : rows.stop]

            def plainly() -> tuple[Tensor, Tensor]:
                with self.standing_in(tuned=True) as model:
                    leaf = some.detach().requires_grad_(True)
                    scores = self.scored(model, leaf, rows)
                    return self.differentiated(model, scores, leaf).contiguous(), scores.detach()

            if self.replays is None:
                return plainly()
            asked = replace(self, inputs=some, score=self.score.of(_samples(rows, self.batch)))
            return self.replays.of(asked, some, plainly)

        self.look_at(inputs)
        gradients, scores = self.run(work, inputs.shape[0])
        return gradients, scores

    def at_layer(self, layer: str) -> tuple[Tensor, Tensor, Tensor, int]:
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
        known = of_layer(self, layer, dependent=several)
        if known is not None:
            return *known[0], known[1]
        call = self.showing(layer)

        def work(rows: range) -> tuple[Tensor, Tensor, Tensor]:
            nonlocal runs
            inputs = self.inputs[rows.start : rows.stop]
            with call.standing_in(tuned=True) as model, Tap(model, layer, dependent=several) as tap:
                scores = call.scored(model, inputs.detach().requires_grad_(True) if several else inputs, rows)
                activation, runs = tap.leaf, tap.runs
                gradient = self.differentiated(model, scores, activation, what=f"layer {layer!r}")
                return activation.detach(), gradient, scores.detach()

        activation, gradient, scores = self.run(work, self.batch)
        return activation, gradient, scores, runs

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
        with self.standing_in() as model, around(leaf), watched(model, seen):
            return self.plain.output(model, leaf, range(sample, sample + 1))

    @contextmanager
    def lent(
        self, sample: int | None, seed: int
    ) -> Iterator[tuple[nn.Module, dict[int, Any], Callable[[Sequence[Tensor]], Tensor]]]:
        """For code that is not ours, which may run a model, hook it and change it: many passes with one stand-in.

        Args:
            sample: Which sample it is about; None for all, block by block.
            seed: Of the random numbers that torch draws.

        Yields:
            The stand-in, with weights of its own; which object of the model, by its id, became which of the
            stand-in's; and a function from N variants of the sample, a tensor (N, ...) for each explained input, to
            their scores, shape (N,).
        """
        copies: dict[int, Any] = {}
        with self.standing_in(seed, copies, frozen=False) as model:
            own_weights(model)

            def score(variants: Sequence[Tensor]) -> Tensor:
                self.check()
                first, step = (0, 1) if sample is None else (sample, self.batch)
                rows = range(first, first + len(variants[0]) * step, step)
                return finite(self.plain.scored(model, variants, rows), "score")

            yield model, copies, score

    @contextmanager
    def standing_in(
        self, seed: int = 0, copies: dict[int, Any] | None = None, *, tuned: bool = False, frozen: bool = True
    ) -> Iterator[nn.Module]:
        """A pass: a stand-in of the model, with gradients on, see :func:`~.isolation.stand_in`.

        Args:
            seed: Of the random numbers.
            copies: Filled in: which object of the model, by its id, became which of the stand-in.
            tuned: Whether only the output is looked at, so that it may be computed with other weights.
            frozen: Whether nothing but the inputs needs a gradient: its parameters are then its own, and hold the same
                numbers, so that a forward that exchanges the data of one doesn't exchange the caller's.
        """
        self.check()
        self.memory.passes += 1
        before = _versions(self.model)
        with stand_in(self.model, seed, copies) as model, ExitStack() as inside:
            inside.enter_context(computing(self.precision, self.inputs.device))
            if self.check is not _never:
                inside.enter_context(interruptible(self.check))
            if frozen and self.memory.by_hand:
                thaw(model)
            elif tuned and self.tuned is not None:
                freeze(model, self.tuned.weight)
                self.tuned.dress(model)
            elif frozen:
                freeze(model)
            try:
                yield model
            except ValueError as error:
                if _versions(self.model) != before:
                    raise ModelChanged(
                        "model: its weights changed while the map was computed (is it being trained in another cell?). "
                        "Ask again when it rests."
                    ) from error
                raise

    def differentiated(self, model: nn.Module, scores: Tensor, leaf: Tensor, what: str = "inputs") -> Tensor:
        """The gradient of the scores of a pass: see :func:`~.autograd.differentiate`."""
        return differentiate(model, scores, leaf, what, by_hand=self.memory.by_hand and owns_weights(model))

    def scored(self, model: nn.Module, inputs: Tensor | Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        """The scores of some rows, which have these numbers in a batch of K * B."""
        if self.joint and len(rows) > 1:
            each = [self.scored(model, inputs[k : k + 1], rows[k : k + 1]) for k in range(len(rows))]
            return torch.cat(each)
        return self.told(self.output(model, inputs, rows), rows, model)

    def told(self, output: Any, rows: Sequence[int], model: nn.Module) -> Tensor:
        """The scores in what a stand-in returned for some rows."""
        score = self.score if self.joint else self.score.of(_samples(rows, self.batch))
        if is_function(score.target):  # it may read what a hook of the caller's has kept
            score = replace(score, target=beside(model, score.target))
        return self.widened(score.total(output, self.inputs.shape[1]) if self.joint else score(output, len(rows)))

    def widened(self, scores: Tensor) -> Tensor:
        """Scores in the type in which they are told, whatever the passes compute in."""
        return scores.to(self.inputs.dtype) if self.precision == "bfloat16" else scores

    def output(self, model: nn.Module, inputs: Tensor | Sequence[Tensor], rows: Sequence[int]) -> Any:
        """What the stand-in returns for some rows (or explained inputs one by one), see :meth:`scored`."""
        laid = self.tuned is not None and self.tuned.channels_last
        samples = _samples(rows, self.batch)
        if self.joint:
            inputs, samples = inputs[0], torch.arange(inputs[0].shape[0], device="cpu")
        fill = partial(self._arguments.fill, channels_last=laid)
        return forward(model, fill, inputs, samples, self.memory)


def _samples(rows: Sequence[int], batch: int) -> Tensor:
    span = isinstance(rows, range)
    numbers = torch.arange(rows.start, rows.stop, rows.step, device="cpu") if span else torch.tensor(rows, device="cpu")
    return numbers % batch


def _versions(model: nn.Module) -> list[int | None]:
    weights = [weight for module in modules_of(model) for weight in module._parameters.values() if weight is not None]
    return [None if weight.is_inference() else weight._version for weight in weights]
