"""Logs of the service: one line for each record, that a program can read and that no user can forge."""

import json
import logging
import shlex
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.log_format import LineFormatter, log_context


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("service.x", logging.INFO, __file__, 1, message, (), None)
    vars(made).update(fields)
    return made


def test_json_holds_the_message_the_context_and_the_fields():
    with log_context(request_id="r1"), log_context(experiment_id="e1"):
        line = LineFormatter("api", "json").format(record("hello", status=200))
    fields = json.loads(line)
    assert fields.pop("time").endswith("Z")
    assert fields == {
        "level": "info",
        "process": "api",
        "logger": "service.x",
        "message": "hello",
        "request_id": "r1",
        "experiment_id": "e1",
        "status": 200,
    }


def test_the_context_ends_where_it_ends():
    with log_context(request_id="r1"):
        pass
    assert "request_id" not in LineFormatter("api", "json").format(record("hello"))


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_traceback_stays_in_its_line(form):
    try:
        raise ValueError("a\nb")
    except ValueError:
        made = record("failed", exc_info=sys.exc_info())
    line = LineFormatter("api", form).format(made)
    assert "ValueError" in line
    assert "\n" not in line


@given(st.text())
def test_no_text_can_pass_for_another_record_or_field(text):
    line = LineFormatter("api", "logfmt").format(record(text, name_of_user=text))
    assert len(line.split("\n")) == 1
    if '"' not in text and "\\" not in text:  # else a shell's idea of an escape is not JSON's
        names = [word.partition("=")[0] for word in shlex.split(line)]
        assert names == ["time", "level", "process", "logger", "message", "name_of_user"]
