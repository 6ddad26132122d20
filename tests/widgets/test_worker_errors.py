"""Any exception of a model ends one computation: it is shown, the thread continues, and the next request works."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from toys import alive, settled

import saliency_widgets as sw
from saliency_widgets.session.worker import raise_again, worker_error

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
TABLE = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 4)), columns=list("abcd"))


class Leave(BaseException):
    """An exception of a user, whose constructor has more arguments than ``args``."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Unspeakable(BaseException):
    """An exception whose conversion to text raises SystemExit."""

    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


RAISED: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(1),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "Leave": lambda: Leave("enough", 3),
    "Unspeakable": lambda: Unspeakable("nothing"),
    "StopIteration": StopIteration,
    "RuntimeError": lambda: RuntimeError("broken"),
    "MemoryError": MemoryError,
}


def shown(name: str) -> str:
    """What a view's message contains."""
    return "Memory ran out" if name == "MemoryError" else name


class Faulty(nn.Module):
    """Raises on worker threads while ``fault`` is set."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.fault: list[Callable[[], BaseException]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fault and threading.current_thread() is not threading.main_thread():
            raise self.fault[0]()
        return self.inner(x)


def image_model() -> Faulty:
    torch.manual_seed(0)
    return Faulty(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))).eval()


@pytest.fixture(autouse=True)
def no_thread_raises(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    escaped: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", escaped.append)
    yield
    assert escaped == []


@pytest.mark.parametrize("name", RAISED)
def test_errors_in_an_explorer_its_trust_tests_and_its_save_panel(name: str, tmp_path: Path) -> None:
    model = image_model()
    explorer = sw.explore(model, IMAGE, target=0, method="smoothgrad", n_samples=2)
    before = explorer.wait(60)
    explorer.trust._fold.selected_index = 0
    explorer.kind_view.saving._fold.selected_index = 0
    explorer.trust.wait(60)
    model.fault.append(RAISED[name])

    explorer.trust._choice.value = 2
    assert explorer.trust.wait(60)
    assert name in explorer.trust._message.value
    explorer.kind_view.saving._boxes["n_samples"].value = True
    explorer.kind_view.saving._name.value = str(tmp_path / "page.html")
    explorer.kind_view.saving._save()
    assert explorer.kind_view.saving.wait(60)
    assert name in explorer.kind_view.saving._message.value
    assert not any(tmp_path.iterdir())
    explorer.update(n_samples=3)
    with pytest.raises((ValueError, MemoryError)):
        explorer.wait(60)
    assert explorer.view.status["state"] == "error"
    assert shown(name) in explorer.view.status["message"]

    model.fault.clear()
    explorer.update(n_samples=2)
    assert torch.equal(explorer.wait(60).values, before.values)
    explorer.close()


@pytest.mark.parametrize("name", RAISED)
def test_errors_in_an_explorer_of_rows(name: str) -> None:
    model = Faulty(nn.Linear(4, 3)).eval()
    explorer = sw.explore(model, TABLE.iloc[[0]], background=TABLE, target=0, method="gradient")
    before = explorer.wait(60)
    model.fault.append(RAISED[name])
    explorer.update(method="integrated_gradients")
    with pytest.raises((ValueError, MemoryError)):
        explorer.wait(60)
    assert shown(name) in explorer.view.status["message"]
    model.fault.clear()
    explorer.update(method="gradient")
    assert torch.equal(explorer.wait(60).values, before.values)
    explorer.close()


@pytest.mark.parametrize("name", RAISED)
def test_errors_in_a_comparison(name: str) -> None:
    model = image_model()
    comparison = sw.compare(model, IMAGE, methods=["gradient", "grad_cam"], classes=[0])
    before = comparison.wait(60, progress=False)
    model.fault.append(RAISED[name])
    weights = {key: weight.clone() for key, weight in model.state_dict().items()}
    model.inner[0].bias.data += 0.25  # a new version, for which nothing is cached
    comparison.update()
    with pytest.raises((ValueError, MemoryError)):
        comparison.wait(60, progress=False)
    assert all(shown(name) in cell.status["message"] for cell in comparison.view.cells)
    model.fault.clear()
    model.load_state_dict(weights)
    comparison.update()
    after = comparison.wait(60, progress=False)
    assert {key: torch.equal(result.values, before[key].values) for key, result in after.items()} == dict.fromkeys(
        before, True
    )
    comparison.close()


@pytest.mark.parametrize("name", RAISED)
def test_errors_in_a_lesson(name: str) -> None:
    model = image_model()
    model.fault.append(RAISED[name])
    lesson = sw.lesson(model, IMAGE, steps=["input", "gradient"], target=0)
    if name == "MemoryError":
        with pytest.raises(MemoryError):
            lesson.wait(60)
    else:
        lesson.wait(60)
    assert lesson.view.content("input")["state"] == "ready"
    assert shown(name) in lesson.view.content("gradient")["message"]
    lesson.close()


def test_an_error_of_millions_of_characters_is_truncated_where_it_is_shown(tmp_path: Path) -> None:
    model = image_model()
    explorer = sw.explore(model, IMAGE, target=0, method="smoothgrad", n_samples=2)
    explorer.wait(60)
    explorer.trust._fold.selected_index = 0
    explorer.kind_view.saving._fold.selected_index = 0
    explorer.trust.wait(60)
    model.fault.append(lambda: ValueError("bad batch: " + "0.123, " * 10**6))
    explorer.trust._choice.value = 2
    assert explorer.trust.wait(60)
    explorer.kind_view.saving._boxes["n_samples"].value = True
    explorer.kind_view.saving._name.value = str(tmp_path / "page.html")
    explorer.kind_view.saving._save()
    assert explorer.kind_view.saving.wait(60)
    explorer.update(n_samples=3)
    with pytest.raises(ValueError, match="bad batch") as caught:
        explorer.wait(60)
    lesson = sw.lesson(model, IMAGE, steps=["gradient"], target=0)
    lesson.wait(60)
    shown = [explorer.view.status["message"], explorer.trust._message.value, explorer.kind_view.saving._message.value,
             lesson.view.content("gradient")["message"]]  # fmt: skip
    assert all("bad batch: 0.123, " in words and len(words) < 2500 for words in shown)
    assert all("… (truncated: 70" in words for words in shown)
    assert len(str(caught.value)) > 7 * 10**6
    lesson.close()
    explorer.close()


def test_inputs_that_overflow_are_an_error_of_the_map_only() -> None:
    made = sw.explore(nn.Linear(4, 3).eval(), TABLE.iloc[[0]], background=TABLE, executor="inline")
    made.wait(60)
    made.edit(a=1e300)  # the check-up that follows gets the same row
    with pytest.raises(ValueError, match="too large for the model's type"):
        made.wait(60)
    made.edit(a=1.0)
    made.wait(60)
    made.close()


def test_each_wait_raises_a_new_exception_that_holds_no_locals() -> None:
    model = image_model()
    explorer = sw.explore(model, IMAGE, target=0, method="smoothgrad", n_samples=2)
    explorer.wait(60)
    model.fault.append(lambda: Leave("enough", 3))
    explorer.update(n_samples=3)

    class Large:
        pass

    def wait() -> tuple[BaseException, int, weakref.ref]:
        large = Large()
        held = weakref.ref(large)
        with pytest.raises(ValueError, match="Leave") as caught:
            explorer.wait(60)
        frames = list(caught.traceback)
        assert large is not None
        return caught.value, len(frames), held

    raised, frames, held = zip(*(wait() for _ in range(5)), strict=True)
    assert len({id(error) for error in raised}) == 5
    assert set(frames) == {frames[0]}
    assert isinstance(raised[0].__cause__, Leave)
    del raised
    assert settled(lambda: not any(map(alive, held)))
    explorer.close()


ACTIVATIONS: list[weakref.ref] = []  # not in a closure, because passes copy closures


def test_an_error_does_not_hold_the_failed_pass() -> None:
    model = image_model()
    explorer = sw.explore(model, IMAGE, target=0, method="smoothgrad", n_samples=2)
    explorer.wait(60)

    def fail() -> BaseException:
        activation = torch.zeros(1000)
        ACTIVATIONS.append(weakref.ref(activation))
        return RuntimeError(f"broken with {len(activation)}")

    model.fault.append(fail)
    explorer.update(n_samples=3)
    with pytest.raises(ValueError, match="broken"):
        explorer.wait(60)
    assert ACTIVATIONS
    assert settled(lambda: not any(map(alive, ACTIVATIONS)))
    explorer.close()


def test_chained_and_grouped_errors_do_not_hold_failed_passes() -> None:
    activations: list[weakref.ref] = []

    def run() -> None:
        activation = torch.zeros(1000)
        activations.append(weakref.ref(activation))
        raise KeyError(len(activation))

    def run_again() -> None:
        try:
            run()
        except KeyError:
            raise ValueError("again") from RuntimeError("another")

    try:
        try:
            run_again()
        except ValueError as error:
            raise ExceptionGroup("many", [error]) from None
    except ExceptionGroup as error:
        reported = worker_error(error)
    assert reported
    assert activations[0]() is None


@pytest.mark.parametrize("executor", ["thread", "inline"])
def test_an_observer_on_the_worker_can_save_the_finished_map(executor: str, tmp_path: Path) -> None:
    explorer = sw.explore(image_model(), IMAGE, target=0, method="smoothgrad", n_samples=2, executor=executor)
    explorer.wait(60)

    def save(change: Any) -> None:
        if change["new"]["state"] == "done":
            explorer.save_state(tmp_path / "state")

    explorer.view.observe(save, "status")
    explorer.update(n_samples=3)
    done = explorer.wait(60)
    explorer.view.unobserve(save, "status")
    assert torch.equal(sw.load(tmp_path / "state").values, done.values)
    explorer.close()


def test_wait_is_refused_in_an_observer_of_a_comparison() -> None:
    model = image_model()
    comparison = sw.compare(model, IMAGE, methods=["gradient", "grad_cam"], classes=[0])
    comparison.wait(60, progress=False)
    refused: list[str] = []

    def wait(_change: Any) -> None:
        with pytest.raises(RuntimeError, match=r"^wait: called by an observer") as error:
            comparison.wait(60, progress=False)
        refused.append(str(error.value))

    comparison.view.cells[0].observe(wait, "status")
    model.inner[0].bias.data += 0.25
    comparison.update()
    assert len(comparison.wait(60, progress=False)) == 2
    assert refused
    comparison.close()


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_a_failing_observer_of_a_cell_does_not_block_the_comparison(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    model = image_model()
    comparison = sw.compare(model, IMAGE, methods=["gradient", "grad_cam"], classes=[0])
    comparison.wait(60, progress=False)

    def fail(_change: Any) -> None:
        raise kind("observer")

    comparison.view.cells[0].observe(fail, "status")
    model.inner[0].bias.data += 0.25
    comparison.update()
    assert list(comparison.wait(60, progress=False)) == [("", "Grad-CAM")]
    assert list(comparison.errors) == [("", "Gradient")]
    assert reported
    comparison.view.cells[0].unobserve(fail, "status")
    comparison.update()
    assert len(comparison.wait(60, progress=False)) == 2
    comparison.close()


class OddError(Exception):
    """An exception that can be neither copied nor created again."""

    def __new__(cls, *_args: Any, made: bool = False) -> OddError:
        if not made:
            raise KeyboardInterrupt
        return super().__new__(cls)

    def __init__(self, *, made: bool) -> None:
        super().__init__("odd words")


class SameError(Exception):
    """An exception whose copy is itself."""

    def __copy__(self) -> SameError:
        return self


@pytest.mark.parametrize("error", [OddError(made=True), SameError("odd words"), Leave("odd words", 3)])
def test_an_exception_that_can_not_be_copied_is_raised_again_as_another(error: BaseException) -> None:
    error.__context__ = KeyError("before")
    with pytest.raises(BaseException, match="odd words") as caught:
        raise_again(error)
    assert caught.value is not error
    assert caught.value.__context__ is error.__context__
    assert not caught.value.__suppress_context__
    assert error.__traceback__ is None
