"""An immutable description of what to compute, submitted to a session and used as the key of cached results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.inputs.options import OPTIONS
from saliency_widgets.runtime.model.version import identity

_ACCEPTED = ("method", "target", "score", "contrast", *OPTIONS)  # by ``sw.attribute``, next to a method's parameters


@dataclass(frozen=True)
class Request:
    """A request: what to compute for one input of one model.

    Attributes:
        method: The method's name.
        target: Class index or name, tensor of indices, function, or None for the top prediction.
        score: "logit", "probability", "log_probability" or "value".
        contrast: A class whose score is subtracted, or None.
        params: All the method's parameters, checked, as (name, value) pairs.
    """

    method: str
    target: Any = None
    score: str = SCORE.default
    contrast: Any = None
    params: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(
        cls,
        method: str,
        params: Mapping[str, Any],
        *,
        target: Any = None,
        score: str = SCORE.default,
        contrast: Any = None,
    ) -> Request:
        """Return a request with the method's parameters checked and completed.

        Raises:
            TypeError: The method doesn't have a parameter, or its value has the wrong type.
            ValueError: The method is unknown, or a value is out of range.
        """
        checked = get_method(method).check_params(params, _ACCEPTED)
        return cls(method, target, SCORE.check(score), contrast, tuple(checked.items()))

    @property
    def settings(self) -> dict[str, Any]:
        """The equivalent keyword arguments of ``sw.attribute``."""
        return {
            "method": self.method,
            "target": self.target,
            "score": self.score,
            "contrast": self.contrast,
            **dict(self.params),
        }

    def with_chunk_size(self, rows: int | None) -> Request:
        """Return the request with this chunk size unless it has one, so that repeating it yields the same numbers."""
        params = tuple((name, rows if name == CHUNK_SIZE.name and v is None else v) for name, v in self.params)
        return replace(self, params=params)

    @property
    def key(self) -> tuple:
        """A hashable key that is equal only for equal requests."""
        return tuple((name, identity(value)) for name, value in self.settings.items())

    @property
    def pass_key(self) -> tuple:
        """The method and those of its parameters that single passes depend on."""
        continued = {param.name for param in get_method(self.method).params if param.continued}
        return (identity(self.method), *((name, identity(v)) for name, v in self.params if name not in continued))
