"""What the steps of a lesson are computed from: one model, one image, one score."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from saliency_widgets import render
from saliency_widgets.api.checkup import check_up
from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import is_function, probabilities
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session import Frame, Problem, Request, compute, frame_of
from saliency_widgets.session.frames import coded
from saliency_widgets.widgets.lesson.page import Page, Step

T = TypeVar("T")

_LONGEST = 24  # letters of a class's name: it stands on buttons

GRADIENT = "gradient"
STRENGTH = Reduction()
"""How maps are shown from the step on that knows channels: the largest size of each pixel."""


class Board:
    """Answers what the steps ask, each question once. Used by one thread.

    Args:
        problem: The model and the image.
        target: What is explained: a class index or a function.
        score: On which scale.
        baseline: Where Integrated Gradients begin.
        noise_level: Of SmoothGrad.
        n_samples: Of SmoothGrad.
        seed: Of all noise.

    Attributes:
        brought: Names of the images and maps that pages have brought already.
    """

    def __init__(
        self, problem: Problem, *, target: Any, score: str, baseline: Any, noise_level: float, n_samples: int, seed: int
    ) -> None:
        self.problem, self.target, self.score = problem, target, score
        self.baseline, self.noise_level, self.n_samples, self.seed = baseline, noise_level, n_samples, seed
        self.brought: set[str] = set()
        self._check: Callable[[], None] = lambda: None
        self._kept: dict[Hashable, Any] = {}
        self._version: tuple | None = None

    @property
    def baseline_name(self) -> str:
        """The baseline in words."""
        return repr(self.baseline) if isinstance(self.baseline, str) else "your own"

    def page(self, step: Step, check: Callable[[], None]) -> Iterator[Page]:
        """What a step shows, in one piece.

        Args:
            step: Which.
            check: Raises to end the computation.

        Raises:
            TypeError: The model or the target can't be explained.
            ValueError: The step doesn't apply to this model, or the model has changed since the first step.
        """
        self._check = check
        self._look_at_version()
        page = Page(known=self.brought)
        page.notes += self._concerning(step.method)
        step.build(self, page)
        self._look_at_version()
        yield page

    def _look_at_version(self) -> None:
        version = self.problem.version()
        if self._version is None:
            self._version = version
        elif version != self._version:
            raise ValueError(
                "model: it, or the image, has changed since the lesson began, and its steps would be of two models. "
                "Run the cell again for a lesson about what it is now."
            )

    def _concerning(self, method: str) -> list[str]:
        """What the check-up has against a method; where it makes the map wrong, there is none."""
        if not method:
            return []
        found = self.once("check-up", lambda: list(check_up(self.problem, self.request(DEFAULT), self._check)))
        own = [finding for finding in found if method in finding.methods and finding.severity != "slow"]
        wrong = next((finding for finding in own if finding.severity == "wrong"), None)
        if wrong is not None:
            raise DoesNotApply(wrong)
        return [finding.what for finding in own]

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made under a key, made now where it wasn't."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def forget(self) -> None:
        """Let go of everything that was computed."""
        self._kept.clear()

    # ---- questions

    def request(self, method: str, *, target: Any = None, **params: Any) -> Request:
        """A question about the target, or about another."""
        return Request.of(method, params, target=self.target if target is None else target, score=self.score)

    def estimates(self, method: str, **asked: Any) -> Iterator[Attribution]:
        """Running estimates of a method, as ``sw.attribute`` would end with."""
        return compute(self.problem, self.request(method, **asked), self._check)

    def answer(self, method: str, **asked: Any) -> Attribution:
        """What ``sw.attribute`` gives with these settings."""

        def make() -> Attribution:
            *_, last = self.estimates(method, **asked)
            return last

        return self.once(("answer", self.request(method, **asked).key), make)

    def runner(self) -> Runner:
        """The model bound to the image and the score, for the checks of :mod:`~saliency_widgets.evaluation`."""
        score, _ = self.problem.resolve(self.request(GRADIENT))
        return self.problem.runner(score, self._check)

    @property
    def gradient(self) -> Attribution:
        """The plain gradient of the score."""
        return self.answer(GRADIENT)

    @property
    def scored(self) -> float:
        """The score that is explained."""
        score = self.gradient.score
        assert score is not None
        return float(score[0])

    # ---- images and maps

    @property
    def image(self) -> np.ndarray:
        """What the model sees, uint8 (H, W, 3)."""
        images = self.problem.prepared.images
        assert images is not None
        return images[0]

    def image_of(self, tensor: Tensor) -> np.ndarray:
        """Another input as an image for people, uint8 (H, W, 3)."""
        found = self.problem.image_of(tensor)
        assert found is not None
        return found

    def strength(self, found: Attribution) -> Frame:
        """A map as the explorer shows it: the largest size of each pixel."""
        return frame_of(found, STRENGTH)

    def map_of(self, found: Attribution) -> Tensor:
        """The same, as numbers, shape (H, W)."""
        height, width = found.input_shape[-2:]
        return STRENGTH(found.values, (height, width))[0]

    def channel(self, which: int, sign: str) -> Frame:
        """One channel of the gradient."""
        found = self.gradient
        return frame_of(replace(found, values=found.values[:, which : which + 1]), Reduction(sign))

    def own_size(self, found: Attribution, sign: str) -> Frame:
        """A class activation map in its layer's own resolution."""
        height, width = found.values.shape[-2:]
        return coded(Reduction(sign)(found.values, (height, width))[0], signed=False)

    # ---- words

    @property
    def channels(self) -> list[str]:
        """What the channels are called."""
        count = self.problem.tensor.shape[1]
        return ["Red", "Green", "Blue"] if count == 3 else [f"Channel {k + 1}" for k in range(count)]

    @property
    def target_name(self) -> str:
        """What is explained, for people."""
        return "your own target" if is_function(self.target) else self.name_of(self.target)

    @property
    def score_name(self) -> str:
        """The score that is explained, for people: "probability of tabby"; of a single value, "value"."""
        return self.scale if self.target_name == self.scale else f"{self.scale} of {self.target_name}"

    def name_of(self, target: Any) -> str:
        """A class or an index, for people."""
        name = self.problem.name_of(target, self.score, short=True)
        return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"

    @property
    def scale(self) -> str:
        """What the score is called."""
        return self.score.replace("_", " ")

    def probable(self) -> Tensor | None:
        """The probability of each class, shape (K,); None where the output holds no class scores."""
        if self.score == "value":
            return None
        try:
            return probabilities(self.problem.logits.detach().cpu().double())[0]
        except (TypeError, ValueError):
            if not isinstance(self.target, int):
                return None
            raise

    def others(self) -> list[int]:
        """Other classes to compare with: the most probable besides the target, and the least probable."""
        shares = self.probable()
        if shares is None or not isinstance(self.target, int) or len(shares) < 2:
            return []
        order = [int(k) for k in torch.argsort(shares, descending=True) if int(k) != self.target]
        return list(dict.fromkeys([order[0], order[-1]]))


class DoesNotApply(ValueError):  # noqa: N818 - it is no error: it is what the check-up knows
    """A step has nothing to show for this model."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.remedy = finding.remedy


def number(value: float) -> str:
    """A number for people: two decimals, or three significant digits."""
    return f"{value:.2f}" if 0.01 <= abs(value) < 10000 else render.format_number(value)


def percent(share: float) -> str:
    """A share for people; in small ones one decimal."""
    return f"{share:.0%}" if abs(share) >= 0.0995 or share == 0 else f"{share:.1%}"
