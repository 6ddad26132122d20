"""``sw.lesson``: how a saliency map comes about and what to do about its weaknesses, for a class."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ipywidgets as w
import torch
from torch import nn
from tqdm.auto import tqdm

from saliency_widgets.api.trust import one_sample
from saliency_widgets.attribution.baselines import BASELINE
from saliency_widgets.attribution.methods.smoothgrad import N_SAMPLES, NOISE_LEVEL
from saliency_widgets.attribution.numerics.noise import SEED
from saliency_widgets.attribution.score import SCORE, is_function
from saliency_widgets.files import resolve_target
from saliency_widgets.params import TIMEOUT, check_choice, check_list
from saliency_widgets.session import Problem
from saliency_widgets.session.examiner import Check, CheckEvent, Examiner
from saliency_widgets.session.jobs import check_executor, raise_again, worker_error
from saliency_widgets.widgets.base.interrupts import stop_on_interrupt
from saliency_widgets.widgets.base.lifetime import Showable, weakly
from saliency_widgets.widgets.base.messages import error_text
from saliency_widgets.widgets.base.parts import parts_of
from saliency_widgets.widgets.base.resending import WorkerWrites
from saliency_widgets.widgets.export import snapshots
from saliency_widgets.widgets.export.page import LARGEST, Saved, page, titled, write_page
from saliency_widgets.widgets.export.saving import provenance
from saliency_widgets.widgets.export.static_output import Snapshot, WithStaticOutput
from saliency_widgets.widgets.image.explorer import Explorer
from saliency_widgets.widgets.lesson import basics, methods
from saliency_widgets.widgets.lesson.board import Board, DoesNotApply
from saliency_widgets.widgets.lesson.page import Page, Step
from saliency_widgets.widgets.lesson.view import LessonView

STEPS: dict[str, Step] = {
    found.name: found
    for found in (
        replace(basics.input_, name="input"),
        basics.prediction,
        basics.gradient,
        basics.absolute,
        basics.channels,
        basics.normalized,
        basics.overlay,
        methods.noise,
        methods.smoothing,
        replace(methods.saturated, name="saturation"),
        methods.path,
        replace(methods.guided, name="guided_backprop"),
        replace(methods.layers, name="grad_cam"),
    )
}
"""All steps by name, in order."""

_SAMPLES = 64
_LOOK = 0.1  # seconds between looks how far it is


class Lesson(WithStaticOutput, Showable, w.VBox):
    """The steps of a saliency map as a strip: see :func:`lesson` for the arguments.

    Attributes:
        view: The strip and the current step; everything it shows is in its traits.
        explorer: The explorer that "Try it" moves; None until it is needed.
    """

    _open = False

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        *,
        target: Any = None,
        transform: Any = None,
        class_names: Any = None,
        device: torch.device | str | None = None,
        score: str = SCORE.default,
        baseline: Any = None,
        noise_level: float = NOISE_LEVEL.default,
        n_samples: int = _SAMPLES,
        seed: int = SEED.default,
        steps: Sequence[str] | None = None,
        explorer: Explorer | None = None,
        executor: str = "thread",
    ) -> None:
        check_executor(executor)
        chosen = _chosen(steps)
        if explorer is not None and not isinstance(explorer, Explorer):
            raise TypeError(
                f"explorer: expected what sw.explore returns for an image, got a {type(explorer).__name__}."
            )
        if explorer is not None and not explorer._open:
            raise ValueError("explorer: it is closed. Make another one, or leave it out.")
        asked = {
            "score": SCORE.check(score),
            "baseline": BASELINE.check(baseline),
            "noise_level": NOISE_LEVEL.check(noise_level),
            "n_samples": N_SAMPLES.check(n_samples),
            "seed": SEED.check(seed),
        }
        problem = Problem(model, inputs, transform=transform, class_names=class_names, device=device)
        if problem.prepared.images is None:
            raise ValueError(
                f"inputs: a lesson is about an image, and these have shape {tuple(problem.tensor.shape)}. Pass one."
            )
        one_sample(problem)
        target = problem.choice(target, asked["score"])
        self._given = {"transform": transform, "class_names": class_names, "device": device}
        self._model, self._inputs, self._target = model, inputs, target
        self._problem = problem
        asked["baseline"] = problem.baselines[0] if baseline is None else baseline
        self._board = Board(problem, target=target, **asked)
        runner = self._board.runner()  # what doesn't fit is an error of this call
        runner.baseline(asked["baseline"], asked["seed"])
        if is_function(target):
            runner.scores(runner.inputs)
        self._steps = {name: STEPS[name] for name in chosen}
        self._settings: dict[str, list[dict[str, Any]]] = {}
        self._failed: dict[str, Exception] = {}
        self._finished: set[str] = set()
        self.explorer: Explorer | None = explorer
        self._own_explorer = False
        title = f"{type(model).__name__} · {self._board.target_name}"
        self.view = LessonView(title, list(self._steps.values()), on_stop=self.stop, on_try=self._on_try)
        self.view.tell()
        super().__init__([self.view], layout={"width": "100%", "overflow": "visible"})
        self.view.root = self.model_id
        self.add_class("sw-lesson-box")
        self._writes = WorkerWrites(self)
        self._open = True
        self._open_lifetime(self.view)
        self._examiner = Examiner(weakly(self._on_told), busy=self._is_busy, executor=executor)
        weakref.finalize(self, self._examiner.ending.end).atexit = False
        for step in self._steps.values():
            self._examiner.submit(Check(step.name, partial(self._board.page, step)))
        stop_on_interrupt(self)

    def __repr__(self) -> str:
        """What it is about, in one line."""
        return f"Lesson({self.view.title!r}, {len(self._finished)} of {len(self._steps)} steps)"

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps, in order."""
        return tuple(self._steps)

    @property
    def step(self) -> str:
        """The name of the step that is shown. Set it to turn to another, by name."""
        return self.steps[self.view.step]

    @step.setter
    def step(self, name: str) -> None:
        place = self.steps.index(check_choice("step", name, self.steps))
        if not self._open:
            raise RuntimeError("step: the lesson is closed. Make it again.")
        self.view.go_to(place)

    def wait(self, timeout: float | None = None) -> Lesson:
        """Wait until all steps are there, with a progress bar.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            The lesson itself.

        Raises:
            TimeoutError: It was not finished in time.
            RuntimeError: It was stopped, or it is closed.
            KeyboardInterrupt: The kernel was interrupted; the computation is stopped.
            Exception: What was not foreseen, in a step; a step that doesn't apply to the model is no error.
        """
        timeout = TIMEOUT.check(timeout)
        try:
            self._wait(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        self._writes.send()  # a notebook that is stored now holds the steps
        self._update_static()
        for error in self._failed.values():
            if not isinstance(error, (TypeError, ValueError)):
                raise_again(error)
        if len(self._finished) < len(self._steps):
            raise RuntimeError("The lesson is not finished: it was stopped, or it is closed. Make it again.")
        return self

    def _wait(self, timeout: float | None) -> None:
        left = timeout
        with tqdm(total=len(self._steps), unit="step", desc="Lesson") as bar:
            done = False
            while not done:
                wait = _LOOK if left is None else min(_LOOK, left)
                done = self._examiner.wait(wait)
                if len(self._finished) > bar.n:  # an update of none is written, too
                    bar.update(len(self._finished) - bar.n)
                if left is not None and not done:
                    left -= wait
                    if left <= 0:
                        raise TimeoutError(f"The lesson was not finished within {timeout} seconds.")

    def stop(self) -> None:
        """Stop computing; the steps that are there stay."""
        self._examiner.drop()
        if len(self._finished) == len(self._steps) or not self._open:
            return
        for name in self._steps:
            if not self.view.content(name):
                remedy = "Run the cell again to compute it."
                self.view.show(name, {"state": "stopped", "message": "Stopped before this step.", "remedy": remedy})
        self.view.tell(state="stopped")

    def page_size(self) -> int:
        """How many bytes :meth:`save_html` would write, of the steps that are there."""
        if not self._open:
            raise RuntimeError("page_size: the lesson is closed. Make it again.")
        return len(page(self.view, title=self.view.title, provenance=self._provenance).encode())

    def save_html(self, path: str | os.PathLike[str], *, title: str | None = None, max_bytes: int = LARGEST) -> Saved:
        """Write the lesson as one HTML file that opens from disk: no kernel, no server, no request to anywhere.

        All steps, their controls and the keys work on it as they do here; only "Try it" is gone. Waits until all steps
        are there, with a progress bar.

        Args:
            path: Where to; a file that is there is replaced, once all of it is written.
            title: What stands above it; what the lesson is about unless given.
            max_bytes: How large the file may be; :meth:`page_size` tells how large it will be.

        Returns:
            Path, size and number of maps.

        Raises:
            ValueError: It would be larger than that. Nothing is written.
            TypeError, ValueError, OSError: It can't be written there: see :func:`~.files.resolve_target`.
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
        """End the computation and its thread, and leave the page; an explorer that was given stays."""
        if not self._open:
            return
        self._open = False
        self._update_static()
        self._examiner.close()
        self._board.forget()
        self.view.retire()
        if self.explorer is not None and self._own_explorer:
            self.explorer.close()
            if self.view.comm is not None:  # ipywidgets' close_all may have closed it already
                self.children = [self.view]
        self.explorer = None
        parts = parts_of(self, [])
        super().close()
        for part in parts:
            part.close()

    def _snapshot(self) -> Snapshot:
        return snapshots.of_lesson(self)

    def _snapshot_sources(self) -> Mapping[w.Widget, Sequence[str]]:
        return {self.view: ("status", "step")}

    # ---- what arrives

    def _is_busy(self) -> bool:
        return self.explorer is not None and self.explorer._session.busy

    def _on_told(self, told: CheckEvent) -> None:
        """A step is finished, or has failed. Called by the worker."""
        name = told.check.name
        if told.state == "running" or not self._open:
            return
        page, error = told.result, told.error
        if isinstance(page, Page):
            self._settings[name] = page.settings
            self._board.brought |= page.names
            self.view.show(name, page.content)
        elif error is not None:
            self._failed[name] = error
            self.view.show(name, {"state": "refused", **_told(error)})
        self._finished.add(name)
        if len(self._finished) == len(self._steps):
            self.view.tell(state="done")
            self._board.forget()

    # ---- trying it out

    def _on_try(self, name: str, shot: int) -> None:
        step = self._steps.get(name)
        if step is None or not self._open:
            return
        try:
            self._try(step, shot)
        except BaseException as error:
            self.view.tell(**_told(worker_error(error)))

    def _try(self, step: Step, shot: int) -> None:
        own = self._settings.get(step.name, [])
        settings = {"target": self._target, **step.settings, **(own[shot] if 0 <= shot < len(own) else {})}
        if self.explorer is None:
            self.explorer = Explorer(
                self._model, self._inputs, target=self._target, score=self._board.score, **self._given
            )
            self._own_explorer = True
            self.children = [self.view, self.explorer]
        self.explorer.update(**settings)
        mark = f"sw-tried-{self.view.model_id}"
        self.explorer.add_class(mark)
        self.view.tell(message="", remedy="")
        self.view.send({"type": "tried", "explorer": mark, "place": step.place})


def _told(error: Exception) -> dict[str, str]:
    """What went wrong, and what to do."""
    if isinstance(error, DoesNotApply):
        return {"message": error_text(error), "remedy": error.remedy}
    if isinstance(error, torch.OutOfMemoryError):
        return {
            "message": "The device ran out of memory for a single row.",
            "remedy": "Pass a smaller image, free the device's memory, or pass device='cpu'.",
        }
    if isinstance(error, (TypeError, ValueError)):
        return {"message": error_text(error), "remedy": "This step is left out; the others are as they should be."}
    return {
        "message": f"{type(error).__name__}: {error_text(error)}",
        "remedy": "This was not foreseen: please report it.",
    }


def _chosen(steps: Sequence[str] | None) -> list[str]:
    """The steps that are asked for, in the lesson's order."""
    if steps is None:
        return list(STEPS)
    named = [check_choice("steps", name, list(STEPS)) for name in check_list("steps", steps, "['input', 'gradient']")]
    if not named:
        raise ValueError(f"steps: expected one at least. Known: {', '.join(STEPS)}.")
    return [name for name in STEPS if name in named]


def lesson(
    model: nn.Module,
    image: Any,
    *,
    target: Any = None,
    transform: Any = None,
    class_names: Any = None,
    device: torch.device | str | None = None,
    score: str = SCORE.default,
    baseline: Any = None,
    noise_level: float = NOISE_LEVEL.default,
    n_samples: int = _SAMPLES,
    seed: int = SEED.default,
    steps: Sequence[str] | None = None,
    explorer: Explorer | None = None,
) -> Lesson:
    """A saliency map step by step, to be shown to a class: large type, arrow keys, a full screen.

    From the image to the overlay: the signed gradient, its size, one number for all channels, the color scale. Then
    what is wrong with it, and what helps: noise and smoothing, saturation and the way of Integrated Gradients, the
    caveat of Guided Backprop, Grad-CAM's layers. Each step has its own control, and says which of the explorer's
    controls changes the same; "Try it" moves an explorer there. All numbers and maps are this model's, those of
    :func:`attribute`. They are computed once, step by step, and are then all in the page: turning and sliding need no
    kernel.

    Args:
        model: Any ``torch.nn.Module`` that scores each row of a batch; call ``model.eval()`` first.
        image: One image, as for :func:`explore`.
        target: A class index or name, None for the top prediction, or a function from the model's output to one number.
        transform: From ``image`` to what the model takes, as for :func:`explore`.
        class_names: As for :func:`explore`.
        device: Where to compute; the model's own device unless given.
        score: "logit", "probability", "log_probability", or "value" for regression.
        baseline: Where the way to the image begins: a name such as "black" or "blur", a tensor or a function.
        noise_level: Of SmoothGrad: the noise's standard deviation, as a part of the input's max - min.
        n_samples: Of SmoothGrad.
        seed: Of all noise.
        steps: Names of the steps to show; all of them unless given. See :attr:`Lesson.steps`.
        explorer: The explorer that "Try it" moves; one is made below the lesson unless given.

    Returns:
        The lesson, a widget: it shows itself as the last line of a cell, and leaves the current step there as an image
        and a text for readers without a kernel (see :func:`~saliency_widgets.static_output`).

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range, an unknown step, an input that doesn't fit, or a model that failed.
    """
    return Lesson(
        model, image, target=target, transform=transform, class_names=class_names, device=device, score=score,
        baseline=baseline, noise_level=noise_level, n_samples=n_samples, seed=seed, steps=steps, explorer=explorer,
    )  # fmt: skip
