"""What to compute, frozen: the key of the cache and the content of the mailbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.targets import SCORE


@dataclass(frozen=True)
class Request:
    """One question about one input of one model.

    Attributes:
        method: The method's name.
        target: Class index or name, tensor of indices, function, or None for the top prediction.
        score: "logit", "probability", "log_probability" or "value".
        contrast: A class whose score is subtracted, or None.
        params: All the method's parameters, checked, as pairs.
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
        """A request with the method's parameters checked and completed.

        Raises:
            TypeError: A parameter the method doesn't have, or of the wrong type.
            ValueError: An unknown method, or a value out of range.
        """
        checked = get_method(method).check_params(params)
        return cls(method, target, SCORE.check(score), contrast, tuple(checked.items()))

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of ``sw.attribute`` that ask the same."""
        return {
            "method": self.method,
            "target": self.target,
            "score": self.score,
            "contrast": self.contrast,
            **dict(self.params),
        }

    @property
    def key(self) -> tuple:
        """A hashable stand-in: equal only for the same question."""
        return tuple((name, _identity(value)) for name, value in self.settings.items())


def _identity(value: Any) -> Any:
    """Numbers and names by value; tensors by identity and version, so that an edit in place is noticed."""
    if isinstance(value, Tensor):
        return ("tensor", id(value), None if value.is_inference() else value._version)
    if isinstance(value, (list, tuple)):
        return tuple(_identity(item) for item in value)
    if isinstance(value, (str, int, float, bool, type(None))):
        return (type(value).__name__, value)
    return ("object", id(value))
