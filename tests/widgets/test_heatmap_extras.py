"""What the heatmap view sends besides the map: the code that reproduces it, and the findings of the check-up."""

from __future__ import annotations

import threading

import pytest

from saliency_widgets.diagnostics.report import Finding
from saliency_widgets.session import Event
from saliency_widgets.widgets import DisplaySettings
from saliency_widgets.widgets.base import messages
from saliency_widgets.widgets.base.heatmap import HeatmapView

RESULT = [
    Finding("Hooks see one of two calls.", ("features.3",), ("deconvnet", "own_method"), "Use two modules."),
    Finding("One sample changes another's score.", severity="slow"),
]
TITLES = {"deconvnet": "Deconvnet", "gradient": "Gradient"}


@pytest.fixture
def view():
    made = HeatmapView(b"", DisplaySettings())
    yield made
    made.retire()
    made.close()


@pytest.fixture
def sent(view, monkeypatch):
    """The states sent to the page, in order."""
    states = []
    monkeypatch.setattr(view, "_send", lambda message, buffers=None: states.append(message["state"]))
    return states


def frame(index: int, final: bool = False) -> dict:
    return {"generation": 1, "index": index, "final": final, "codes": b""}


def test_findings_become_dicts_with_the_methods_titles_in_the_same_order():
    assert messages.findings_of(RESULT, TITLES) == [
        {
            "what": "Hooks see one of two calls.",
            "where": ["features.3"],
            "methods": ["Deconvnet", "own_method"],
            "remedy": "Use two modules.",
            "severity": "wrong",
        },
        {
            "what": "One sample changes another's score.",
            "where": [],
            "methods": [],
            "remedy": "",
            "severity": "slow",
        },
    ]
    assert messages.findings_of((), TITLES) == []


def test_a_view_is_not_checked_until_findings_are_passed(view, sent):
    assert view.checked is False
    assert view.findings == []
    view.show_findings([])
    assert view.checked is True
    assert sent == [{"checked": True}]
    view.show_findings(messages.findings_of(RESULT, TITLES))
    assert [finding["severity"] for finding in view.findings] == ["wrong", "slow"]
    view.show_findings(messages.findings_of(RESULT[:1], TITLES))
    assert len(view.findings) == 1


def test_checked_and_findings_are_sent_in_one_message(view, sent):
    result = messages.findings_of(RESULT, TITLES)
    worker = threading.Thread(target=view.show_findings, args=(result,))
    worker.start()
    worker.join()
    assert sent == [{"checked": True, "findings": result}]


def test_a_view_copies_its_findings(view):
    result = messages.findings_of(RESULT, TITLES)
    view.show_findings(result)
    result[0]["what"] = "changed"
    result.clear()
    assert view.findings[0]["what"] == RESULT[0].what


def test_an_empty_status_has_no_code_no_method_and_no_remark():
    empty = messages.status()
    assert (empty["code"], empty["method"], empty["remark"]) == ("", "", "")
    event = Event(1, 1, "running")
    assert messages.status_of(event, "", "") == messages.status(generation=1, state="running", elapsed=event.elapsed)
    value = messages.status_of(event, "", "", method="Gradient", code="pass", remark="4 rows per pass")
    assert (value["code"], value["method"], value["remark"]) == ("pass", "Gradient", "4 rows per pass")


def test_the_code_is_sent_with_the_map_that_it_reproduces(view, sent):
    view.offer(frame(1), messages.status(done=1))
    view.offer(frame(2), messages.status(done=2))  # queued: the first frame is not acknowledged yet
    view._on_message(view, {"type": "painted", "generation": 1, "index": 1}, [])
    view.offer(frame(3, final=True), messages.status(code="the third"))
    assert view.code == ""  # queued with its map
    view._on_message(view, {"type": "painted", "generation": 1, "index": 2}, [])
    assert view.code == "the third"
    assert [(state["frame"]["index"], state["status"]["code"]) for state in sent] == [
        (1, ""),
        (2, ""),
        (3, "the third"),
    ]
    view._on_message(view, {"type": "painted", "generation": 1, "index": 3}, [])
    view.offer(None, messages.status())
    assert view.code == ""


def test_the_code_is_sent_once_and_is_not_in_the_repr(view, sent):
    code = "sw.attribute(model, inputs, seed=12345)"
    view.offer(frame(1, final=True), messages.status(state="done", title="Gradient", code=code))
    assert [sorted(state) for state in sent] == [["frame", "status"]]
    assert repr(view) == "HeatmapView('Gradient', done)"


def test_a_closed_view_sends_nothing(view, sent):
    view.retire()
    view.close()
    sent.clear()
    view.show_findings([])
    assert sent == []


def test_settings_that_change_concurrently_are_not_sent_back_to_the_page(monkeypatch):
    display, sent, threads = DisplaySettings(), [], []
    controls, should_send = display.controls(), display._should_send_property

    def should_send_after_another_change(name, value):
        if name == "clip" and not threads:  # meanwhile another thread copies the value of another control
            threads.append(threading.Thread(target=display._follow, args=(controls["opacity"],)))
            threads[0].start()
            threads[0].join(0.3)
        return should_send(name, value)

    monkeypatch.setattr(display, "_should_send_property", should_send_after_another_change)
    monkeypatch.setattr(display, "send_state", lambda key=None: sent.append(key))
    controls["clip"].value = (1.0, 90.0)
    threads[0].join(60)
    assert sent == []
    assert display.settings["clip"] == (1.0, 90.0)
