"""Classification and regression: targets, labels and predictions."""

import pytest
import torch

from saliency_widgets.attribution.score import SCORE
from saliency_widgets.outputs.classification import Classification
from saliency_widgets.outputs.regression import Regression
from saliency_widgets.outputs.selection import resolve, task_of
from saliency_widgets.outputs.task import Prediction
from saliency_widgets.session import Problem

LOGITS = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)


def test_each_scale_has_a_task():
    assert {scale: task_of(scale) for scale in SCORE.choices} == {
        "logit": Classification,
        "probability": Classification,
        "log_probability": Classification,
        "value": Regression,
    }
    with pytest.raises(ValueError, match="score"):
        task_of("values")


def test_classes_are_shown_by_probability_and_numbers_in_order():
    names = ("a, one", "b, two", "c, three")
    shares = LOGITS.softmax(0)
    classes = Classification("logit", names, outputs=3)
    assert classes.predictions(LOGITS, 2) == [
        Prediction(1, "b", pytest.approx(float(shares[1]))),
        Prediction(2, "c", pytest.approx(float(shares[2]))),
    ]
    assert Regression("value", names, outputs=3).predictions(LOGITS, 2) == [
        Prediction(0, "a", 0.0),
        Prediction(1, "b", 2.0),
    ]
    assert (classes.text(0.9125), Regression("value").text(0.9125)) == ("91.2%", "0.9125")


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Classification("logit", outputs=3), ("class 1", "custom target", "output[1, 2]")),
        (Regression("value", outputs=3), ("output 1", "custom target", "output[1, 2]")),
        (Regression("value", outputs=1), ("value", "custom target", "output[1, 2]")),
        (Classification("logit", ("x", "y, z")), ("y, z", "custom target", "output[1, 2]")),
    ],
)
def test_labels_of_targets(task, labels):
    assert (task.label(1), task.label(lambda out: out), task.label((1, 2))) == labels


def test_the_default_target_is_the_likeliest_class_or_the_only_number():
    scores = torch.stack([LOGITS, -LOGITS])
    assert Classification("logit").default(scores).tolist() == [1, 0]
    assert Regression("value").default(scores[:, :1]).tolist() == [0, 0]
    with pytest.raises(ValueError, match="returns 3 values"):
        Regression("value").default(scores)


@pytest.mark.parametrize("z", [-1.5, 1.5])
def test_a_single_output_stands_for_two_named_classes(z):
    scores = torch.tensor([[z]])
    for kind, scale in ((Classification, "logit"), (Regression, "value")):
        task = kind(scale, ("no", "yes"), binary=True, outputs=1)
        assert task.paired
        assert (task.opposite(0), task.opposite(1)) == ("yes", "no")
        assert resolve(task, "no", scores, 1)(scores, 1).tolist() == [-z]
    assert Classification("logit", ("no", "yes"), binary=True, outputs=1).default(scores).tolist() == [int(z > 0)]
    assert task.predictions(task.logits(scores)[0], 5) == [Prediction(1, "value", z)]
    assert not Classification("logit", ("no", "yes"), binary=True, outputs=2).paired


def test_the_task_of_a_problem():
    model = torch.nn.Linear(4, 3).double()
    problem = Problem(model, torch.rand(1, 4).double(), class_names=["a", "b", "c"])
    assert problem.task().outputs is None, "before the model was run"
    _ = problem.logits
    assert problem.task("value") == Regression("value", ("a", "b", "c"), outputs=3)
    assert problem.name_of(2) == "c"
