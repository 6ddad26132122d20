"""What to compute, frozen: the key of the cache and the content of the mailbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from saliency_widgets.attribution import get_method
from saliency_widgets.attribution.query import CHUNK_SIZE
from saliency_widgets.attribution.score import SCORE
from saliency_widgets.runtime.model.version import identity


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

    def paced(self, rows: int | None) -> Request:
        """The same question in passes of so many rows, where it doesn't say: whoever repeats it does the same."""
        params = tuple((name, rows if name == CHUNK_SIZE.name and v is None else v) for name, v in self.params)
        return replace(self, params=params)

    @property
    def key(self) -> tuple:
        """A hashable stand-in: equal only for the same question."""
        return tuple((name, identity(value)) for name, value in self.settings.items())

    @property
    def pass_key(self) -> tuple:
        """The method and those of its parameters on which single passes depend."""
        continued = {param.name for param in get_method(self.method).params if param.continued}
        return (identity(self.method), *((name, identity(v)) for name, v in self.params if name not in continued))
