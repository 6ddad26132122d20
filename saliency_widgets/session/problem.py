"""A model and an input to explain."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from saliency_widgets.attribution import Kind, Reduction, Score
from saliency_widgets.attribution.errors import LESS_MEMORY, out_of_memory
from saliency_widgets.attribution.positions import Positions
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import SCORE, Scale, is_function
from saliency_widgets.inputs import (
    Options,
    Prepared,
    Table,
    class_names_of,
    prepare_for,
    read_class_names,
    unwrapped,
)
from saliency_widgets.outputs.selection import is_index, resolve, task_of
from saliency_widgets.outputs.task import Task
from saliency_widgets.runtime.batching import paced_rows
from saliency_widgets.runtime.layers.hooks import tensor_in
from saliency_widgets.runtime.layers.selection import Spatial, spatial_layers
from saliency_widgets.runtime.memory import Memory, Sharing
from saliency_widgets.runtime.model.devices import check_device, on_device
from saliency_widgets.runtime.model.isolation import device_of, dtype_of
from saliency_widgets.runtime.model.model_copy import Copies
from saliency_widgets.runtime.model.tensor_hash import is_empty
from saliency_widgets.runtime.model.version import Held, ModelVersion, identity
from saliency_widgets.runtime.passes import Passes
from saliency_widgets.runtime.precision import check_precision
from saliency_widgets.runtime.reuse.cuda_graphs import Replays
from saliency_widgets.runtime.reuse.fusion import Tuned
from saliency_widgets.runtime.reuse.graph_cache import Store
from saliency_widgets.runtime.reuse.survey import are_probabilities, output_shape, survey, token_scores
from saliency_widgets.runtime.runner import Runner, imprecision
from saliency_widgets.session.request import Request


class Problem:
    """A model, an input prepared for it, and the names of its classes.

    Args:
        model: Any module; it is run and never changed.
        inputs: See :func:`saliency_widgets.inputs.prepare_for`.
        gradients: Whether gradients of the inputs are needed.
        **options: See :class:`~saliency_widgets.inputs.options.Options`.

    Raises:
        TypeError: ``model`` is not a module, or another argument has an unsupported type.
        ValueError: Inputs or names don't fit, or weights have no values.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        *,
        gradients: bool = True,
        **options: Any,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got a {type(model).__name__}.")
        if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
            raise ValueError("model: some layers have no weights yet (lazy modules). Run model(inputs) once first.")
        about = Options(**options)
        device = about.device
        check_device(device)
        empty = [is_empty(tensor) for tensor in (*model.parameters(), *model.buffers())]
        moved = device is not None and str(device) != str(device_of(model))
        if any(empty) and (moved or all(empty)):
            raise ValueError(_UNLOADED)
        if device is not None and str(device).startswith("meta"):
            raise ValueError("device: 'meta' can't compute anything. Omit it to use the model's device.")
        model, self.wrapped = unwrapped(model)
        self.model = model if device is None else on_device(model, device)
        model = self.model
        self._inputs = self._explained = inputs
        self._ready: tuple[Any, Prepared | None] = inputs, None  # the inputs to explain next, if they are prepared
        self._prepare = partial(_prepare, model, options=about, gradients=gradients)
        self._precision = check_precision(about.precision, device_of(model))
        if about.cuda_graphs and device_of(model).type != "cuda":
            raise ValueError(
                f"cuda_graphs: expected a CUDA device, but the model is on {str(device_of(model))!r}. "
                f"Omit it, or pass device='cuda'."
            )
        self._cuda_graphs = about.cuda_graphs
        self._replays: Replays | None = None
        self.prepared: Prepared = self._prepare(inputs)
        self._seen = identity(inputs)
        names, self._names_passed = class_names_of(about.class_names, about.transform, model)
        positions = self.kind.positions
        if positions is not None and positions.names is not None and not self._names_passed:
            names = positions.names()
        self.class_names = read_class_names(names)
        # With the settings of a request, enough to repeat a computation.
        self.options = {**about.to_repeat(), **self.prepared.read_as}
        self.transformed = about.transform is not None
        self.memory = Memory()
        self._sharing: dict[tuple, Sharing] = {}
        self._lock = threading.RLock()
        self._model_version, self._form = ModelVersion(model), self._placement()
        # What was computed with the weights is computed again as soon as their number differs from this one.
        self._number = self._model_version() if self.prepared.from_weights else 0
        self._copies = Copies(model, self._model_version)
        self.output_notes: tuple[str, ...] = ()
        self.squashed = False  # whether the model's outputs are already probabilities
        self.untuned = ""  # why a faster computation was refused
        self._logits: tuple[tuple, Tensor] | None = None  # as the model returns them
        self._token_scores: tuple[tuple, Tensor] | None = None  # at all positions of a text, on the device
        self._tasks: dict[tuple, tuple[list[str] | None, Task]] = {}
        self._shape: tuple[tuple, tuple[int, ...]] | None = None  # of the model's output
        self._spatial: tuple[tuple, Mapping[str, Spatial]] | None = None
        self._fold = about.fold
        self._tuned: Tuned | None = None
        if any(empty):
            self._check_loaded()

    def _check_loaded(self) -> None:
        """Refuse a model with empty weights, unless its output has values: the weights may come with the call."""
        runner = self.runner(_UNSCORED)
        try:
            with runner.passes.isolated() as model, torch.no_grad():
                output = tensor_in(runner.passes.output(model, runner.inputs, range(runner.batch)))
        except ValueError as error:
            other = "" if "meta" in str(error) else f" If that is intended (functional_call): {error}"
            raise ValueError(_UNLOADED + other) from error
        if output is not None and is_empty(output):
            raise ValueError(_UNLOADED)

    @property
    def tensor(self) -> Tensor:
        """The inputs as the model sees them, shape (B, ...)."""
        return self.prepared.tensor

    @property
    def kind(self) -> Kind:
        """The kind of the inputs."""
        return self.prepared.kind

    @property
    def table(self) -> Table | None:
        """The table that the inputs are rows of, or None."""
        return self.prepared.table

    def map_of(self, values: Tensor, reduction: Reduction) -> Tensor:
        """Reduce the first sample's values to one for each feature: shape (H, W) for an image, (F,) for a row."""
        return self.kind.reduce(values[:1], reduction, self.tensor)[0]

    def read(self, inputs: Any) -> Prepared:
        """Prepare other inputs, without explaining them.

        Raises:
            TypeError, ValueError: They don't fit.
        """
        return self._prepare(inputs)

    def move(self, inputs: Any, prepared: Prepared | None = None) -> None:
        """Explain other inputs from now on: another row of the same table, or another text.

        Args:
            inputs: The inputs.
            prepared: What :meth:`read` returned for them. Default: they are prepared when they are needed.
        """
        self._ready = inputs, prepared
        self._inputs = inputs  # without the lock: a pass may hold it, and a slider must not wait

    def table_of(self, version: tuple | None) -> Table | None:
        """Return the table of a version of the inputs; a result may belong to a row that is no longer selected."""
        inputs = None if version is None else version[1][1].value
        return inputs if isinstance(inputs, Table) else self.table

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The names of jointly explained inputs, with the shape of one sample of each; empty for a single input."""
        arguments = self.prepared.arguments
        return {} if arguments is None else {part.name: part.shape for part in arguments.several}

    def shaped(self, values: Tensor) -> Tensor:
        """Return values in the original shape of the inputs: methods see (B, 1) for inputs of shape (B,)."""
        arguments = self.prepared.arguments
        if arguments is None or arguments.several or not arguments.parts or values.shape != self.tensor.shape:
            return values
        return values.reshape(-1, *arguments.parts[0].shape)

    @property
    def image_parts(self) -> list[str]:
        """The names of the images among jointly explained inputs; empty for a single input."""
        arguments = self.prepared.arguments
        return [] if arguments is None else [part.name for part in arguments.several if part.kind.name == "image"]

    @property
    def main_part(self) -> str | None:
        """The jointly explained input to show alone: the first image, or else the first; None for a single input."""
        return next(iter([*self.image_parts, *self.parts]), None)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the first image among jointly explained inputs, or else of the inputs, (B, ...)."""
        images = self.image_parts
        return (len(self.tensor), *self.parts[images[0]]) if images else tuple(self.shaped(self.tensor).shape)

    @property
    def logits(self) -> Tensor:
        """The logits of the classes, shape (B, K), on the host; recomputed when the model or the inputs have changed.

        If two classes are named and the model has a single logit z, they are the pair (0, z): see
        :func:`~saliency_widgets.attribution.score.in_classes`.

        Raises:
            TypeError: The model's output holds no tensor.
            ValueError: The model failed, or its output has the wrong form.
        """
        with self._lock:
            return self.task().logits(self._logits_at(self.version()))

    def logits_for(self, target: Any) -> Tensor:
        """Return the logits of the classes at the position of a target, see :attr:`logits`.

        Raises:
            TypeError, ValueError: See :attr:`logits`.
        """
        positions = self.kind.positions
        if positions is None or is_function(target):
            return self.logits
        with self._lock:
            return self.task().logits(self._logits_at(self.version(), positions.split(target, "target")[0]))

    @property
    def predicted(self) -> Tensor | None:
        """The logits that were computed last, for any version; None before the first."""
        return None if self._logits is None else self.task().logits(self._logits[1])

    def predicted_at(self, version: tuple | None) -> Tensor | None:
        """Return the logits that were computed last if they belong to that version, otherwise None."""
        latest = self._logits
        if latest is None or latest[0] != version:
            return None
        return self.task().logits(latest[1])

    def task(self, score: str = SCORE.default) -> Task:
        """Return the task that describes the model's output on a scale, as far as it is known."""
        names, outputs = self.class_names, None if self._logits is None else self._logits[1].shape[1]
        positions = self.kind.positions
        key = score, self.squashed, outputs, positions
        tasks = self._tasks  # another thread may replace it
        if key not in tasks or tasks[key][0] is not names:  # called often, with perhaps thousands of names
            binary = self._names_passed and names is not None and len(names) == 2
            made = task_of(score)(
                cast(Scale, score), None if names is None else tuple(names), binary, self.squashed, outputs, positions
            )
            tasks[key] = names, made
        return tasks[key][1]

    def _logits_at(self, version: tuple, position: Tensor | None = None) -> Tensor:
        if self.kind.positions is not None:
            return self._logits_of_tokens(version, self.kind.positions, position)
        if self._logits is not None and self._logits[0] == version:
            return self._logits[1]
        self._tuned, self._replays = None, None
        result = survey(self.runner(_UNSCORED).passes, fold=self._fold)
        logits, self.output_notes, self._tuned, self.untuned = result.logits, result.notes, result.tuned, result.refused
        self.squashed = result.squashed
        self._check_names(logits)
        self._logits = (version, logits)
        self.options.pop("class_names", None)
        if self.task().paired:  # without the names, target 0 is the logit itself
            self.options["class_names"] = self.class_names
        self._replays = Replays() if self._cuda_graphs else None
        return logits

    def _logits_of_tokens(self, version: tuple, positions: Positions, position: Tensor | None) -> Tensor:
        """Return the logits at one position of each text; those at all positions are kept if they are not too many."""
        scores = self._token_scores[1] if self._token_scores and self._token_scores[0] == version else None
        if scores is None:
            scores = token_scores(self.runner(_UNSCORED).passes)
            self._token_scores = (version, scores) if scores.numel() <= _MOST_SCORES else None
            self.squashed = are_probabilities(scores.flatten(0, 1))
        at = torch.tensor(positions.default, device="cpu") if position is None else position
        logits = scores[torch.arange(len(at), device=scores.device), at.to(scores.device)].cpu()
        self._check_names(logits)
        self._logits = (version, logits)
        return logits

    def _check_names(self, logits: Tensor) -> None:
        classes = self.task().logits(logits).shape[1]
        if self.class_names is not None and len(self.class_names) != classes:
            if self._names_passed:
                raise ValueError(
                    f"class_names: expected {classes} names, one for each class, got {len(self.class_names)}."
                )
            self.class_names = None  # a fine-tuned model may still carry the names of its former classes

    @property
    def baselines(self) -> tuple[str, ...]:
        """The names of the baselines that apply to these inputs, the default first."""
        return self.runner(_UNSCORED).baselines

    @property
    def rows(self) -> int | None:
        """The number of rows per pass that allows regular updates; None if the default does."""
        return paced_rows(self.tensor.device, self.memory.seconds)

    def runner(
        self,
        score: Score,
        check: Callable[[], None] | None = None,
        results: Store | None = None,
        graphs: Store | None = None,
    ) -> Runner:
        """Bind the model to the inputs and to a score."""
        prepared, unscored = self.prepared, score is _UNSCORED
        passes = Passes(
            self.model, prepared.tensor, score, arguments=prepared.arguments, memory=self.memory,
            sharing=self._sharing_of(score), tuned=None if is_function(score.target) and not unscored else self._tuned,
            precision=None if unscored else self._precision, copies=self._copies,
        )  # fmt: skip
        return Runner(
            passes if check is None else replace(passes, check=check),
            kind=prepared.kind, results=results, graphs=graphs,
            replays=None if unscored else self._replays,
        )  # fmt: skip

    def _sharing_of(self, score: Score) -> Sharing:
        """Return whether rows may share a pass, which depends on the model, the inputs and a target function."""
        key = self._number, self._seen, Held(score.target) if is_function(score.target) else None
        if len(self._sharing) >= _SHARED:
            self._sharing.clear()  # running computations have a reference to theirs
        return self._sharing.setdefault(key, Sharing())

    def resolve(self, request: Request, version: tuple | None = None) -> tuple[Score, Tensor | None]:
        """Return the score of a request and its value for the inputs, shape (B,), or None if the value is unknown."""
        if version is None and self.kind.positions is not None:
            version = self.version()  # an edited text has other positions
        positions, batch = self.kind.positions, self.tensor.shape[0]
        if positions is not None and not is_function(request.target):
            at, target = positions.split(request.target, "target")
            other, contrast = positions.split(request.contrast, "contrast", at)
            if not torch.equal(at, other):
                raise ValueError("contrast: expected a class at the position of target, got one at another position.")
            with self._lock:
                logits = self._logits_at(self.version() if version is None else version, at)
            score = resolve(self.task(request.score), target, logits, batch, contrast=contrast)
            return replace(score, position=at), score(logits, batch).to(self.tensor.device)
        logits = shape = None
        if is_index(request.target) or is_index(request.contrast):
            shape = self._output_shape(self.version() if version is None else version)
        if not is_function(request.target) and len(shape or ()) in (0, 1, 2, 4):
            with self._lock:
                logits = self._logits_at(self.version() if version is None else version)
        score = resolve(self.task(request.score), request.target, logits, batch, contrast=request.contrast, shape=shape)
        if logits is None or not score.of_classes:
            return score, None
        return score, score(logits, batch).to(self.tensor.device)

    def choice(self, target: Any, score: str = SCORE.default, at: Any = None) -> Any:
        """Resolve a target for one sample to the number of a class, an index as a tuple, or the function itself.

        Args:
            target: The target.
            score: The scale.
            at: Another target, whose position a class has if it has none.
        """
        if is_function(target):
            return target
        if self.kind.positions is not None and isinstance(at, tuple) and not isinstance(target, tuple):
            target = (at[0], target)
        resolved = self.resolve(Request(DEFAULT, target, score))[0]
        assert isinstance(resolved.target, Tensor)
        chosen = resolved.index(resolved.target)
        return int(chosen[0]) if chosen.ndim == 1 else tuple(chosen[0].tolist())

    def _output_shape(self, version: tuple) -> tuple[int, ...]:
        """Return the shape of the scores as the model returns them, (B, ...)."""
        with self._lock:
            if self._shape is None or self._shape[0] != version:
                self._shape = version, output_shape(self.runner(_UNSCORED).passes)
            return self._shape[1]

    @cached_property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """The layers with a spatial output: layer name -> (C, h, w), or (C, d, h, w)."""
        self._spatial = self.version(), spatial_layers(self.runner(_UNSCORED).passes)
        return {path: layer.shape for path, layer in self._spatial[1].items() if layer.listed}

    def spatial_at(self, version: tuple) -> Mapping[str, Spatial] | None:
        """Return all data on the spatial layers if they were determined in that version, otherwise None."""
        return self._spatial[1] if self._spatial is not None and self._spatial[0] == version else None

    def precision_notes(self, runner: Runner) -> tuple[str, ...]:
        """Return the notes on the chosen precision, with the error that it causes."""
        if self._precision in (None, "full"):
            return ()
        if not runner.inputs.is_floating_point():
            return (f"Computed in {self._precision}.",)
        off = runner.once("imprecision", lambda: imprecision(runner))
        return (f"Computed in {self._precision}: this changes a gradient of the score by {off:.1%} (L1).",)

    def name_of(self, target: Any, score: str = SCORE.default, *, short: bool = False) -> str:
        """Return a label for a target: a class's name or number, or an index.

        Args:
            target: A class, an index or a function.
            score: The scale: a model that predicts values has no classes.
            short: Whether to use only the first of a class's names: see :func:`~.outputs.class_names.short_names`.
        """
        return self.task(score).label(target, short=short)

    def version(self) -> tuple:
        """Return a value that changes with the model or the inputs: see :mod:`~saliency_widgets.runtime.model.version`.

        Inputs that were changed in place are prepared again.

        Raises:
            TypeError, ValueError: The changed inputs don't fit.
        """
        with self._lock:  # a cell may move controls while the worker calls this
            inputs = self._inputs
            seen, number = identity(inputs), self._model_version()
            moved = number != self._number and (self.prepared.from_weights or self._placement() != self._form)
            self._number = number
            if seen != self._seen or moved:
                ready, prepared = self._ready
                if prepared is None or ready is not inputs or moved:
                    prepared = self._prepare(inputs)
                edited = inputs is self._explained and seen != self._seen
                if edited and prepared.tensor.shape != self.tensor.shape:
                    raise ValueError(
                        f"inputs: they were changed in place, and with them the shape of the model's input, from "
                        f"{tuple(self.tensor.shape)} to {tuple(prepared.tensor.shape)}. Create a new explorer for "
                        f"inputs of another shape."
                    )
                self.prepared, self._seen, self._form = prepared, seen, self._placement()
                self._explained, self._tasks = inputs, {}
            return number, seen

    def verify(self, check: Callable[[], None]) -> bool:
        """Look for changes of the weights that :meth:`version` misses: see :meth:`.ModelVersion.verify`."""
        return self._model_version.verify(check)

    def renew(self) -> None:
        """Give the model a new version, and with it new copies, even if no change was noticed."""
        self._model_version.renew()

    @property
    def last_version(self) -> tuple:
        """The version that was read last; for a new problem, the one it was created with."""
        return self._number, self._seen

    def _placement(self) -> tuple[torch.device, torch.dtype | None]:
        """Return the device and dtype of the model's inputs."""
        return device_of(self.model), dtype_of(self.model)


def _prepare(model: nn.Module, inputs: Any, *, options: Options, gradients: bool) -> Prepared:
    try:
        return prepare_for(model, inputs, options, device=device_of(model), dtype=dtype_of(model), gradients=gradients)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise MemoryError(f"inputs: memory ran out while they were read. {LESS_MEMORY} ({error})") from error


def _no_score(_output: Any) -> Tensor:
    raise NotImplementedError("the model is inspected without a score")


_MOST_SCORES = 2**26  # 256 MB: those of 1,300 tokens in a vocabulary of 50,000
_SHARED = 8  # combinations of model version, inputs and target function
_UNLOADED = (
    "model: some weights are on the meta device and have no values. Load them first, for example with "
    "model.to_empty(device='cpu') and load_state_dict."
)
_UNSCORED = Score("logit", _no_score)
