"""What the person who watches sees: a table on a terminal, plain lines in a pipe."""

import io

import pytest
from rich.console import Console

from service.client.progress_display import Lines, table, watching
from service.schemas.experiments import ExperimentView
from tests.support.specs import spec_dict


def view(state="RUNNING", step=30, **changes):
    fields = {
        "id": "abc",
        "name": "small[1]",
        "project": "tests",
        "owner": "local",
        "description": "",
        "tags": {},
        "priority": 0,
        "version": 1,
        "cloned_from": None,
        "state": state,
        "desired": "run",
        "reason": None,
        "message": "",
        "actions": (),
        "attempt": 1,
        "progress": {
            "step": step,
            "total_steps": 60,
            "epoch": 1,
            "epochs": 2,
            "images_per_second": 120.4,
            "eta_seconds": 61.2,
        },
        "metrics": {"val/top1": 0.876},
        "summary": {},
        "created_at": "2026-01-01T00:00:00Z",
        "started_at": None,
        "ended_at": None,
        "mlflow_run_id": None,
        "links": {"self": "", "logs": "", "events": "", "metrics": ""},
        "spec": spec_dict(),
    }
    return ExperimentView.model_validate(fields | changes)


def drawn(views):
    console = Console(file=io.StringIO(), width=140, force_terminal=True, no_color=True)
    console.print(table(views))
    return console.file.getvalue()


def test_the_table_shows_where_it_is_how_fast_and_how_long_still():
    text = drawn([view()])
    assert "small[1]" in text  # a name is no markup
    assert all(part in text for part in ("RUNNING", "1/2", "87.6%", "120", "0:01:01"))


def test_the_bar_grows():
    assert [drawn([view(step=step)]).count("━") for step in (0, 30, 60)] == [0, 12, 24]


def test_what_has_ended_has_no_speed_and_no_eta_but_its_reason():
    text = drawn([view(state="FAILED", reason="CUDA_OOM")])
    assert "CUDA_OOM" in text
    assert "0:01:01" not in text
    assert "120" not in text


def test_a_pipe_gets_a_line_for_each_change_of_state_and_none_in_between():
    stream = io.StringIO()
    lines = Lines(stream)
    for state in ("QUEUED", "RUNNING", "RUNNING", "SUCCEEDED", "SUCCEEDED"):
        lines.show([view(state=state)])
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["QUEUED", "RUNNING", "SUCCEEDED"]


def test_as_json_each_of_these_lines_is_the_whole_experiment():
    stream = io.StringIO()
    with watching(stream, as_json=True) as show:
        for state in ("QUEUED", "RUNNING", "RUNNING", "FAILED"):
            show([view(state=state)])
    lines = stream.getvalue().splitlines()
    assert [ExperimentView.model_validate_json(line) for line in lines] == [
        view(state=state) for state in ("QUEUED", "RUNNING", "FAILED")
    ]


@pytest.mark.parametrize("end", [True, False])
def test_a_pipe_gets_no_control_characters(end):
    stream = io.StringIO()
    with watching(stream) as show:
        show([view(state="SUCCEEDED" if end else "RUNNING")])
    assert "\x1b" not in stream.getvalue()
