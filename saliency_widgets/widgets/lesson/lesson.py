"""``sw.lesson``: for teaching how a saliency map is computed and how to address its weaknesses."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import ipywidgets as w
from torch import nn
from tqdm.auto import tqdm

from saliency_widgets.api.trust import one_sample
from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.methods.smoothgrad import N_SAMPLES, NOISE_LEVEL
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.score import SCORE, is_function
from saliency_widgets.files import resolve_target
from saliency_widgets.inputs.options import takes_options
from saliency_widgets.params import TIMEOUT, check_choice, check_list
from saliency_widgets.session import Problem
from saliency_widgets.session.examiner import Check, CheckEvent, Examiner
from saliency_widgets.session.worker import check_executor, raise_again, worker_error
from saliency_widgets.widgets.base.interrupts import stop_on_interrupt
from saliency_widgets.widgets.base.lifetime import Showable, weakly
from saliency_widgets.widgets.base.parts import parts_of
from saliency_widgets.widgets.base.resending import WorkerWrites
from saliency_widgets.widgets.explorer import Explorer
from saliency_widgets.widgets.export import snapshots
from saliency_widgets.widgets.export.page import LARGEST, Saved, page, titled, write_page
from saliency_widgets.widgets.export.saving import provenance
from saliency_widgets.widgets.export.static_output import Snapshot, WithStaticOutput
from saliency_widgets.widgets.lesson.board import describe_error
from saliency_widgets.widgets.lesson.kinds import lesson_for
from saliency_widgets.widgets.lesson.page import Page
from saliency_widgets.widgets.lesson.step import Step
from saliency_widgets.widgets.lesson.view import LessonView

_SAMPLES = 64
_LOOK = 0.1  # seconds between updates of the progress bar


class Lesson(WithStaticOutput, Showable, w.VBox):
    """A widget that shows how a saliency map is computed, as a strip of steps. See :func:`lesson` for the arguments.

    Attributes:
        view: The strip and the current step.
        explorer: The explorer that "Try it" updates; None until it is needed.
    """

    _open = False

    def __init__(  # noqa: PLR0913
        self,
        model: nn.Module,
        inputs: Any,
        *,
        target: Any = None,
        score: str = SCORE.default,
        baseline: Any = None,
        noise_level: float = NOISE_LEVEL.default,
        n_samples: int = _SAMPLES,
        seed: int = SEED.default,
        steps: Sequence[str] | None = None,
        explorer: Explorer | None = None,
        executor: str = "thread",
        **options: Any,
    ) -> None:
        check_executor(executor)
        if explorer is not None and not isinstance(explorer, Explorer):
            raise TypeError(f"explorer: expected an explorer from sw.explore, got a {type(explorer).__name__}.")
        if explorer is not None and not explorer.is_open:
            raise ValueError("explorer: the explorer is closed. Create a new one, or omit it.")
        settings = {
            "score": SCORE.check(score),
            "baseline": BASELINE.check(baseline),
            "noise_level": NOISE_LEVEL.check(noise_level),
            "n_samples": N_SAMPLES.check(n_samples),
            "seed": SEED.check(seed),
        }
        problem = Problem(model, inputs, **options)
        board, available = lesson_for(problem)
        self._steps = _chosen(steps, available)
        one_sample(problem)
        target = problem.choice(target, settings["score"])
        self._options = options
        self._model, self._inputs, self._target = model, inputs, target
        self._problem = problem
        settings["baseline"] = problem.baselines[0] if baseline is None else baseline
        self._board = board(problem, target=target, **settings)
        runner = self._board.runner()  # invalid arguments raise here, not on the worker's thread
        runner.baseline(settings["baseline"], settings["seed"])
        if is_function(target):
            runner.scores(runner.inputs)
        self._settings: dict[str, list[dict[str, Any]]] = {}
        self._failed: dict[str, Exception] = {}
        self._finished: set[str] = set()
        self.explorer: Explorer | None = explorer
        self._owns_explorer = False
        title = f"{type(model).__name__} · {self._board.target_name}"
        self.view = LessonView(
            title, list(self._steps.values()), scene=self._board.scene, on_stop=self.stop, on_try=self._on_try
        )
        self.view.set_status()
        super().__init__([self.view], layout={"width": "100%", "overflow": "visible"})
        self.view.root = self.model_id
        self.add_class("sw-lesson-box")
        self._writes = WorkerWrites(self)
        self._open = True
        self._open_lifetime(self.view)
        self._examiner = Examiner(weakly(self._on_result), busy=self._is_busy, executor=executor)
        weakref.finalize(self, self._examiner.jobs.ending.end).atexit = False
        for step in self._steps.values():
            self._examiner.submit(Check(step.name, partial(self._board.page, step.build, step.method)))
        stop_on_interrupt(self)

    def __repr__(self) -> str:
        """Show the title and the progress in one line."""
        return f"Lesson({self.view.title!r}, {len(self._finished)} of {len(self._steps)} steps)"

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps, in order."""
        return tuple(self._steps)

    @property
    def step(self) -> str:
        """The name of the current step. Set it to go to another step."""
        return self.steps[self.view.step]

    @step.setter
    def step(self, name: str) -> None:
        index = self.steps.index(check_choice("step", name, self.steps))
        if not self._open:
            raise RuntimeError("step: the lesson is closed. Create a new one.")
        self.view.go_to(index)

    def wait(self, timeout: float | None = None) -> Lesson:
        """Wait until all steps are computed, with a progress bar.

        Args:
            timeout: The maximum time to wait, in seconds.

        Returns:
            The lesson itself.

        Raises:
            TimeoutError: The lesson was not finished in time.
            RuntimeError: The lesson was stopped, or it is closed.
            KeyboardInterrupt: The kernel was interrupted; the computation is stopped.
            Exception: An unexpected error in a step. A step that doesn't apply to the model is not an error.
        """
        timeout = TIMEOUT.check(timeout)
        try:
            self._wait(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        self._writes.send()  # a notebook saved now contains the steps
        self._update_static()
        for error in self._failed.values():
            if not isinstance(error, (TypeError, ValueError)):
                raise_again(error)
        if len(self._finished) < len(self._steps):
            raise RuntimeError("The lesson is not finished: it was stopped, or it is closed. Create a new one.")
        return self

    def _wait(self, timeout: float | None) -> None:
        left = timeout
        with tqdm(total=len(self._steps), unit="step", desc="Lesson") as bar:
            done = False
            while not done:
                wait = _LOOK if left is None else min(_LOOK, left)
                done = self._examiner.jobs.wait(wait)
                if len(self._finished) > bar.n:  # tqdm also redraws for an update of zero
                    bar.update(len(self._finished) - bar.n)
                if left is not None and not done:
                    left -= wait
                    if left <= 0:
                        raise TimeoutError(f"The lesson was not finished within {timeout} seconds.")

    def stop(self) -> None:
        """Stop the computation; finished steps stay."""
        self._examiner.jobs.drop()
        if len(self._finished) == len(self._steps) or not self._open:
            return
        for name in self._steps:
            if not self.view.content(name):
                remedy = "Run the cell again to compute it."
                self.view.show(name, {"state": "stopped", "message": "Stopped before this step.", "remedy": remedy})
        self.view.set_status(state="stopped")

    def page_size(self) -> int:
        """Return the number of bytes that :meth:`save_html` would write, for the steps computed so far."""
        if not self._open:
            raise RuntimeError("page_size: the lesson is closed. Create a new one.")
        return len(page(self.view, title=self.view.title, provenance=self._provenance).encode())

    def save_html(self, path: str | os.PathLike[str], *, title: str | None = None, max_bytes: int = LARGEST) -> Saved:
        """Write the lesson as one HTML file that opens from disk, without a kernel, a server or network access.

        All steps, controls and keys work on the page; only "Try it" is missing. The call waits until all steps are
        computed, with a progress bar.

        Args:
            path: The file; an existing file is replaced only after everything is written.
            title: The heading. Default: the lesson's title.
            max_bytes: The maximum size of the file; see :meth:`page_size`.

        Returns:
            The path, the size and the number of maps.

        Raises:
            ValueError: The file would be larger than ``max_bytes``. Nothing is written.
            TypeError, ValueError, OSError: The file can't be written to this path, see :func:`~.files.resolve_target`.
            RuntimeError: The lesson was stopped, or it is closed.
        """
        resolve_target(path)
        title = titled(title, self.view.title)
        self.wait()
        maps = sum(len(self.view.content(name).get("maps", {})) for name in self.steps)
        done = {**self.view.status, "message": "", "remedy": ""}
        return write_page(
            path, self.view, title=title, provenance=self._provenance, maps=maps,
            max_bytes=max_bytes, overrides={self.view: {"status": done, "step": 0}},
        )  # fmt: skip

    @property
    def _provenance(self) -> str:
        return provenance(self._model, {"target": self._board.target_name, "score": self._board.score})

    def close(self) -> None:
        """End the computation and its thread, and remove the lesson from the page. An explorer passed to it stays."""
        if not self._open:
            return
        self._open = False
        self._update_static()
        self._examiner.close()
        self._board.forget()
        self.view.retire()
        if self.explorer is not None and self._owns_explorer:
            self.explorer.close()
            if self.view.comm is not None:  # ipywidgets' close_all may have closed it already
                self.children = [self.view]
        self.explorer = None
        parts = parts_of(self, [])
        super().close()
        for part in parts:
            part.close()

    def _snapshot(self) -> Snapshot:
        return snapshots.of_lesson(self.view, self.steps, self.step, self._provenance)

    def _snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        return {self.view: ("status", "step")}

    # ---- results

    def _is_busy(self) -> bool:
        return self.explorer is not None and self.explorer.session.busy

    def _on_result(self, result: CheckEvent) -> None:
        """Show a step that has finished or failed; called on the worker's thread."""
        name = result.check.name
        if result.state == "running" or not self._open:
            return
        page, error = result.result, result.error
        if isinstance(page, Page):
            self._settings[name] = page.settings
            self._board.existing |= page.names
            self.view.show(name, page.content)
        elif error is not None:
            self._failed[name] = error
            self.view.show(name, {"state": "refused", **describe_error(error)})
        self._finished.add(name)
        if len(self._finished) == len(self._steps):
            self.view.set_status(state="done")
            self._board.forget()

    # ---- "Try it"

    def _on_try(self, name: str, shot: int) -> None:
        step = self._steps.get(name)
        if step is None or not self._open:
            return
        try:
            self._try(step, shot)
        except BaseException as error:
            self.view.set_status(**describe_error(worker_error(error)))

    def _try(self, step: Step, shot: int) -> None:
        shots = self._settings.get(step.name, [])
        settings = {"target": self._target, **step.settings, **(shots[shot] if 0 <= shot < len(shots) else {})}
        if self.explorer is None:
            self.explorer = Explorer(
                self._model, self._inputs, target=self._target, score=self._board.score, **self._options
            )
            self._owns_explorer = True
            self.children = [self.view, self.explorer]
        self.explorer.update(**settings)
        mark = f"sw-tried-{self.view.model_id}"
        self.explorer.add_class(mark)
        self.view.set_status(message="", remedy="")
        self.view.send({"type": "tried", "explorer": mark, "control": step.control_class})


def _chosen(steps: Sequence[str] | None, available: Mapping[str, Step]) -> dict[str, Step]:
    """Return the requested steps in the lesson's order."""
    if steps is None:
        return dict(available)
    names = list(available)
    named = [check_choice("steps", name, names) for name in check_list("steps", steps, f"['{names[0]}', 'gradient']")]
    if not named:
        raise ValueError(f"steps: expected at least one. Known: {', '.join(names)}.")
    return {name: available[name] for name in names if name in named}


@takes_options("transform", "class_names", "tokenizer", "max_new_tokens", "device")
def lesson(  # noqa: PLR0913
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    score: str = SCORE.default,
    baseline: Any = None,
    noise_level: float = NOISE_LEVEL.default,
    n_samples: int = _SAMPLES,
    seed: int = SEED.default,
    steps: Sequence[str] | None = None,
    explorer: Explorer | None = None,
    **options: Any,
) -> Lesson:
    """Explain a saliency map step by step, for teaching: large type, arrow keys, full screen.

    For an image, the first steps lead to the overlay: the signed gradient, its absolute value, the reduction over
    channels and the color scale. For a text, they lead from its tokens to the colored text: the ids, the embeddings,
    the gradient by each number of an embedding, and its sum over each token. The other steps show weaknesses and
    remedies: noise and smoothing, saturation and the path of Integrated Gradients, and for images the caveat of Guided
    Backprop, and Grad-CAM's layers. Each step names the explorer's control for the same setting; "Try it" applies that
    setting in an explorer. All numbers and maps are computed once for this model, as in :func:`attribute`, and stored
    in the page: steps and sliders need no kernel.

    Args:
        model: Any ``torch.nn.Module`` that scores each row of a batch; call ``model.eval()`` first.
        inputs: One image or, with ``tokenizer=``, one text, as for :func:`explore`.
        target: A class index or name, None for the top prediction, or a function from the model's output to one number.
            For a model that scores each token, also a position and a class: see :func:`attribute`.
        score: "logit", "probability", "log_probability", or "value" for regression.
        baseline: The start of the integration path: a name such as "black", "blur" or "pad", a tensor or a function.
        noise_level: SmoothGrad's noise level: the standard deviation relative to the image's max - min, or to the
            spread of each number of the embeddings.
        n_samples: SmoothGrad's number of samples.
        seed: The seed of all noise.
        steps: Names of the steps to show. Default: all, see :attr:`Lesson.steps`.
        explorer: The explorer that "Try it" updates. Default: a new one below the lesson.
        **options: As for :func:`attribute`.

    Returns:
        The lesson, a widget. As the last line of a cell it is displayed, with the current step as an image and a text
        for readers without a kernel (see :func:`~saliency_widgets.static_output`).

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range, an unknown step, an input that doesn't fit, or a model that fails.
    """
    return Lesson(
        model, inputs, target=target, score=score, baseline=baseline, noise_level=noise_level, n_samples=n_samples,
        seed=seed, steps=steps, explorer=explorer, **options,
    )  # fmt: skip
