"""Small networks, trained on the spot, for tables that ship with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_widgets.attribution.numerics.noise import seeded
from saliency_widgets.params import unknown

_EPOCHS, _BATCH, _HIDDEN = 40, 64, 32
_TEST_SHARE = 0.25  # fraction of held-out rows


@dataclass(frozen=True)
class TableModel:
    """A network for a table, with its transform and data.

    Attributes:
        model: The network in eval mode, on the CPU; it takes scaled columns.
        transform: The fitted transformer, from columns in their original units to the model's input.
        background: The training rows, in their original units.
        labels: The labels of the training rows.
        rows: The held-out rows.
        answers: The labels of the held-out rows.
        class_names: The names of the two classes, the one with a high logit last; None for a regression.
        score: The score to explain: "logit", or "value" for a regression.
    """

    model: nn.Module
    transform: Any
    background: pd.DataFrame
    labels: pd.Series
    rows: pd.DataFrame
    answers: pd.Series
    class_names: tuple[str, str] | None
    score: str


def breast_cancer(seed: int = 0) -> TableModel:
    """Train a network with one logit to predict whether a tumor is malignant, on the Wisconsin breast cancer data.

    Source: Street, Wolberg and Mangasarian, "Nuclear feature extraction for breast tumor diagnosis", 1993.

    Args:
        seed: The random seed for the weights and the held-out rows.

    Raises:
        ImportError: The packages of the extra ``demo`` are missing.
    """
    data = _datasets().load_breast_cancer(as_frame=True)
    malignant = (data.target == 0).astype(int)  # in the data, 1 is benign

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output[:, 0], labels)

    return _trained(data.data, malignant, loss, seed, class_names=("benign", "malignant"), score="logit")


def diabetes(seed: int = 0) -> TableModel:
    """Train a network to predict the progression of diabetes after a year, in the points of the data (25 to 346).

    Source: Efron, Hastie, Johnstone and Tibshirani, "Least Angle Regression", 2004.

    Args:
        seed: The random seed for the weights and the held-out rows.

    Raises:
        ImportError: The packages of the extra ``demo`` are missing.
    """
    data = _datasets().load_diabetes(as_frame=True, scaled=False)
    names = {"bp": "blood pressure", "s1": "cholesterol", "s2": "LDL", "s3": "HDL", "s4": "cholesterol / HDL"}
    names |= {"s5": "log triglycerides", "s6": "blood sugar"}
    rows = data.data.rename(columns=names)
    rows["sex"] = np.where(rows["sex"] == rows["sex"].min(), "group 1", "group 2")  # the data don't say which is which

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(output[:, 0], labels)

    return _trained(rows, data.target, loss, seed, class_names=None, score="value")


TABLES: dict[str, Callable[..., TableModel]] = {"tabular": breast_cancer, "diabetes": diabetes}


def table_model(name: str = "tabular", seed: int = 0) -> TableModel:
    """Train one of the networks, by name: "tabular" (breast cancer) or "diabetes".

    Raises:
        ImportError: The packages of the extra ``demo`` are missing.
        ValueError: The table doesn't exist.
    """
    if name not in TABLES:
        raise ValueError(unknown("table", name, list(TABLES)))
    return TABLES[name](seed)


def _datasets() -> Any:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError("The demo needs its extra: pip install 'saliency-widgets[demo]'.") from error
    return datasets


def _trained(
    rows: pd.DataFrame,
    labels: pd.Series,
    loss: Callable[[Tensor, Tensor], Tensor],
    seed: int,
    *,
    class_names: tuple[str, str] | None,
    score: str,
) -> TableModel:
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    generator = seeded(seed, "table")
    order = torch.randperm(len(rows), generator=generator, device="cpu").numpy()
    held_out = round(_TEST_SHARE * len(rows))
    test, train = order[:held_out], order[held_out:]
    words = [name for name in rows if rows[name].dtype.kind not in "buif"]
    numbers = [name for name in rows if name not in words]
    steps = [("numbers", StandardScaler(), numbers), *([("words", OneHotEncoder(), words)] if words else [])]
    transform = ColumnTransformer(steps).fit(rows.iloc[train])
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs = torch.from_numpy(np.asarray(transform.transform(rows.iloc[train]))).float()
        expected = torch.from_numpy(labels.iloc[train].to_numpy(copy=True)).float()
        model = nn.Sequential(nn.Linear(inputs.shape[1], _HIDDEN), nn.Softplus(), nn.Linear(_HIDDEN, 1))
        if class_names is None:
            model.append(_Scale(float(expected.mean()), float(expected.std())))
        unit = 1.0 if class_names is not None else float(expected.var())
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)
        for _ in range(_EPOCHS):
            for batch in torch.randperm(len(inputs), generator=generator, device="cpu").split(_BATCH):
                optimizer.zero_grad()
                (loss(model(inputs[batch]), expected[batch]) / unit).backward()
                optimizer.step()
    reset = {"background": rows.iloc[train], "labels": labels.iloc[train], "rows": rows.iloc[test]}
    parts: dict[str, Any] = {name: part.reset_index(drop=True) for name, part in reset.items()}
    answers = labels.iloc[test].reset_index(drop=True)
    return TableModel(model.eval(), transform, **parts, answers=answers, class_names=class_names, score=score)


class _Scale(nn.Module):
    """A layer that converts standardized predictions to the units of the labels."""

    def __init__(self, mean: float, scale: float) -> None:
        super().__init__()
        self.mean, self.scale = mean, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.mean + self.scale * x
