"""The computations of a lesson, for one model, one input and one score."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from saliency_widgets.api.checkup import check_up
from saliency_widgets.attribution import Attribution, Reduction
from saliency_widgets.attribution.errors import LESS_MEMORY, NO_MEMORY, out_of_memory
from saliency_widgets.attribution.registry import DEFAULT
from saliency_widgets.attribution.score import is_function, probabilities
from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.render import Quantized
from saliency_widgets.runtime.runner import Runner
from saliency_widgets.session import Problem, Request, compute, frame_of
from saliency_widgets.session.frames import coded
from saliency_widgets.widgets.base.messages import error_text
from saliency_widgets.widgets.lesson.page import Page

T = TypeVar("T")

GRADIENT = "gradient"
STRENGTH = Reduction()
"""The reduction of images from the step "Channels" on: the largest absolute value of each pixel."""


class Board:
    """The results that the steps need, each computed once and cached. Used by a single thread.

    Args:
        problem: The model and the input.
        target: The target that is explained: a class index or a function.
        score: The scale of the score.
        baseline: The baseline of Integrated Gradients.
        noise_level: The noise level of SmoothGrad.
        n_samples: The number of samples of SmoothGrad.
        seed: The seed of all noise.

    Attributes:
        existing: The names of the images and maps of finished pages.
        look: The arguments of :meth:`Page.map` for a map of the input.
        scene: What the page shows of an input that is not an image; empty for an image.
        longest: The maximum number of characters of a target's name, which appears on buttons.
    """

    look: ClassVar[Mapping[str, Any]] = {}
    longest: ClassVar[int] = 24

    def __init__(
        self, problem: Problem, *, target: Any, score: str, baseline: Any, noise_level: float, n_samples: int, seed: int
    ) -> None:
        self.problem, self.target, self.score = problem, target, score
        self.baseline, self.noise_level, self.n_samples, self.seed = baseline, noise_level, n_samples, seed
        self.existing: set[str] = set()
        self._check: Callable[[], None] = lambda: None
        self._cache: dict[Hashable, Any] = {}
        self._version: tuple | None = None

    @property
    def baseline_name(self) -> str:
        """The display name of the baseline."""
        return repr(self.baseline) if isinstance(self.baseline, str) else "a custom one"

    def page(self, build: Callable[[Board, Page], None], method: str, check: Callable[[], None]) -> Iterator[Page]:
        """Compute the page of a step and yield it as the only result.

        Args:
            build: A function that fills the page.
            method: The method whose requirements the model must meet; may be empty.
            check: A function, called often, that may raise an exception to end the computation.

        Raises:
            TypeError: The model or the target can't be explained.
            ValueError: The step doesn't apply to this model, or the model has changed since the first step.
        """
        self._check = check
        self._check_version()
        page = Page(existing=self.existing)
        page.notes += self._findings_on(method)
        build(self, page)
        self._check_version()
        yield page

    def _check_version(self) -> None:
        version = self.problem.version()
        if self._version is None:
            self._version = version
        elif version != self._version:
            raise ValueError(
                "model: the model or the input has changed since the lesson began, and its steps would be "
                "inconsistent. Run the cell again to start a new lesson."
            )

    def _findings_on(self, method: str) -> list[str]:
        """Return the check-up's findings on a method; raise DoesNotApply if one makes the map wrong."""
        if not method:
            return []
        findings = self.once("check-up", lambda: list(check_up(self.problem, self.request(DEFAULT), self._check)))
        relevant = [finding for finding in findings if method in finding.methods and finding.severity != "slow"]
        wrong = next((finding for finding in relevant if finding.severity == "wrong"), None)
        if wrong is not None:
            raise DoesNotApply(wrong)
        return [finding.what for finding in relevant]

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the cached value of a key, computed on the first call."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def forget(self) -> None:
        """Drop all cached results."""
        self._cache.clear()

    # ---- requests

    def request(self, method: str, *, target: Any = None, **params: Any) -> Request:
        """Return a request for the lesson's target or for another target."""
        return Request.of(method, params, target=self.target if target is None else target, score=self.score)

    def estimates(self, method: str, **params: Any) -> Iterator[Attribution]:
        """Yield the running estimates of a method; the last one is the result of ``sw.attribute``."""
        return compute(self.problem, self.request(method, **params), self._check)

    def attribution(self, method: str, **params: Any) -> Attribution:
        """Return the attribution of ``sw.attribute`` with these settings."""

        def make() -> Attribution:
            *_, last = self.estimates(method, **params)
            return last

        return self.once(("attribution", self.request(method, **params).key), make)

    def runner(self) -> Runner:
        """Return the model bound to the image and the score, for :mod:`~saliency_widgets.evaluation`."""
        score, _ = self.problem.resolve(self.request(GRADIENT))
        return self.problem.runner(score, self._check)

    @property
    def gradient(self) -> Attribution:
        """The plain gradient of the score."""
        return self.attribution(GRADIENT)

    @property
    def scored(self) -> float:
        """The score that is explained."""
        score = self.gradient.score
        assert score is not None
        return float(score[0])

    # ---- images and maps

    @property
    def scene(self) -> dict[str, Any]:  # noqa: D102
        return {}

    def seen(self, page: Page, caption: str) -> dict[str, Any]:
        """Return a panel with the model's input."""
        return page.image("input", caption, lambda: self.image)

    @property
    def image(self) -> np.ndarray:
        """The model's input as an image, uint8 (H, W, 3)."""
        images = self.problem.prepared.images
        assert images is not None
        return images[0]

    def image_of(self, tensor: Tensor) -> np.ndarray:
        """Convert another model input to an image, uint8 (H, W, 3)."""
        image = self.problem.kind.image_of(tensor)
        assert image is not None
        return image

    def reduction_of(self, method: str) -> Reduction:  # noqa: ARG002
        """Return the reduction in which the lesson shows the maps of a method."""
        return STRENGTH

    def strength(self, attribution: Attribution) -> Quantized:
        """Return a map as the explorer shows it, such as the largest absolute value of each pixel."""
        return frame_of(attribution, self.reduction_of(attribution.method))

    def map_of(self, attribution: Attribution) -> Tensor:
        """Return the values of :meth:`strength` without quantization, shape (H, W)."""
        return self.reduced(attribution.values, attribution.method)

    def reduced(self, values: Tensor, method: str) -> Tensor:
        """Reduce values of the input, shape (1, ...), to a map of two dimensions as those of a method are."""
        return self.problem.kind.features.frame(values, self.reduction_of(method), tuple(self.problem.tensor.shape))

    def channel(self, which: int, sign: str) -> Quantized:
        """Return one channel of the gradient as a map."""
        attribution = self.gradient
        return frame_of(replace(attribution, values=attribution.values[:, which : which + 1]), Reduction(sign))

    def layer_frame(self, attribution: Attribution, sign: str) -> Quantized:
        """Return a class activation map in its layer's resolution."""
        height, width = attribution.values.shape[-2:]
        return coded(Reduction(sign)(attribution.values, (height, width))[0], signed=False)

    # ---- texts

    @property
    def channels(self) -> list[str]:
        """The names of the channels."""
        count = self.problem.tensor.shape[1]
        return ["Red", "Green", "Blue"] if count == 3 else [f"Channel {k + 1}" for k in range(count)]

    @property
    def target_name(self) -> str:
        """The display name of the target."""
        return "a custom target" if is_function(self.target) else self.name_of(self.target)

    @property
    def score_name(self) -> str:
        """The display name of the explained score: "probability of tabby"; "value" for a single value."""
        return self.scale if self.target_name == self.scale else f"{self.scale} of {self.target_name}"

    def name_of(self, target: Any) -> str:
        """Return the display name of a class: its name or index, shortened."""
        name = self.problem.name_of(target, self.score, short=True)
        return name if len(name) <= self.longest else f"{name[: self.longest - 1]}…"

    @property
    def scale(self) -> str:
        """The display name of the score's scale."""
        return self.score.replace("_", " ")

    @property
    def target_class(self) -> int | None:
        """The number of the explained class; None for a function or an index into an output of another form."""
        positions = self.problem.kind.positions
        target = self.target[1] if isinstance(self.target, tuple) and positions is not None else self.target
        return target if isinstance(target, int) else None

    def probable(self) -> Tensor | None:
        """Return the probability of each class, shape (K,); None if the output has no class scores."""
        if not self.problem.task(self.score).shares:
            return None
        try:
            return probabilities(self.problem.logits_for(self.target).detach().cpu().double())[0]
        except (TypeError, ValueError):
            if self.target_class is None:
                return None
            raise

    def others(self) -> list[int]:
        """Return other classes to compare with: the most probable and the least probable one, except the target."""
        shares = self.probable()
        if shares is None or not isinstance(self.target, int) or len(shares) < 2:
            return []
        order = [int(k) for k in torch.argsort(shares, descending=True) if int(k) != self.target]
        return list(dict.fromkeys([order[0], order[-1]]))


class DoesNotApply(ValueError):  # noqa: N818 - not an error, but a finding of the check-up
    """Raised if a step has nothing to show for this model."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.remedy = finding.remedy


def describe_error(error: Exception) -> dict[str, str]:
    """Return the message and the remedy for an error of a step."""
    if isinstance(error, DoesNotApply):
        return {"message": error_text(error), "remedy": error.remedy}
    if out_of_memory(error):
        return {"message": NO_MEMORY, "remedy": LESS_MEMORY}
    if isinstance(error, (TypeError, ValueError)):
        return {"message": error_text(error), "remedy": "This step is skipped; the others are not affected."}
    return {
        "message": f"{type(error).__name__}: {error_text(error)}",
        "remedy": "Unexpected error: please report it.",
    }
