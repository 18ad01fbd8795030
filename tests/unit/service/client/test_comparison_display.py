"""A comparison for the person who watches: a live table on a terminal, a line for each change in a pipe."""

import io
import json
from types import SimpleNamespace

import pytest

from service.client.comparing.display import counts, eta_seconds, watching_comparison
from service.domain.studies import StudyState
from service.schemas.experiments import ProgressView
from service.schemas.studies import ComparisonView, StudyLinks, TrialCounts
from tests.support.studies.results import interval, pair, result

VIEW = ComparisonView.model_construct(
    id="abcdefghjkmn",
    name="does-cbam-help",
    state=StudyState.ACTIVE,
    reason=None,
    trials=TrialCounts(waiting=3, running=2, succeeded=4, failed=1, planned=16),
    links=StudyLinks.model_construct(),
    spec={},
)


def with_(view: ComparisonView, **changes: object) -> ComparisonView:
    return view.model_copy(update=changes)


def training(seconds: float | None, done: float) -> SimpleNamespace:
    """An experiment that trains: so much of it is done, and it takes so many seconds more."""
    return SimpleNamespace(progress=ProgressView(step=round(100 * done), total_steps=100, eta_seconds=seconds))


class Handle:
    """A comparison whose state the test sets."""

    def __init__(self, name: str = "does-cbam-help") -> None:
        self.view = with_(VIEW, name=name)
        self.result = result(running=True)
        self.now: list[SimpleNamespace] = []

    def running(self) -> list[SimpleNamespace]:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_counts_name_what_is_not_zero():
    assert counts(VIEW) == "5/16 runs, 2 running, 1 failed"


@pytest.mark.parametrize(
    ("running", "seconds"),
    [
        ([training(50, 0.5), training(70, 0.3)], (120 + 9 * 100) / 2),  # runs of 100 s, two at a time, nine to begin
        ([training(50, 0.5), training(None, 0.0)], 50 + 9 * 100),
        ([training(None, 0.0)], None),
        ([], None),
    ],
)
def test_the_time_to_the_end_goes_by_those_that_train(running, seconds):
    assert eta_seconds(VIEW, running) == (seconds if seconds is None else pytest.approx(seconds))


def test_a_pipe_gets_a_line_for_each_change(monkeypatch):
    handle, stream = Handle(), io.StringIO()
    monkeypatch.setattr("service.client.comparing.display.RESULT_SECONDS", 0.0)
    with watching_comparison(handle, stream) as show:
        show()
        handle.now = [training(50, 0.5)]  # the time alone is no change
        show()
        handle.view = with_(handle.view, trials=TrialCounts(running=1, succeeded=5, planned=16))
        show()
        handle.result = result(pairs=[pair(verdict="running", interval=None, anytime=interval(-0.01, 0.04))])
        show()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert "5/16 runs, 2 running, 1 failed" in lines[0]
    assert "ETA" not in lines[0]
    assert "5/16 runs, 1 running" in lines[1]
    assert "ETA 0:" in lines[1]
    assert "[−1.0, 4.0] provisional" in lines[2]


def test_a_line_of_json_for_each_change():
    handle, stream = Handle(), io.StringIO()
    handle.view = ComparisonView.model_construct(id="abcdefghjkmn", state=StudyState.ACTIVE)
    with watching_comparison(handle, stream, as_json=True) as show:
        show()
        show()
        handle.view = handle.view.model_copy(update={"state": StudyState.SUCCEEDED})
        show()
    assert [json.loads(line)["state"] for line in stream.getvalue().splitlines()] == ["ACTIVE", "SUCCEEDED"]


def test_a_terminal_gets_a_table_that_stays_in_its_place():
    handle, stream = Handle(), Terminal()
    with watching_comparison(handle, stream) as show:
        show()
    assert "top-1" in stream.getvalue()
    assert "5/16 runs" in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_hostile_name_does_not_reach_the_terminal(stream):
    handle, out = Handle("\x1b]0;owned\x07\nfake-line"), stream()
    with watching_comparison(handle, out) as show:
        show()
    assert "\x1b]0;" not in out.getvalue()
    assert "\nfake-line" not in out.getvalue()
