"""Logs and events, at rest and as they happen."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from httpx2 import Response

from service.dispatcher.store import AttemptEnd
from service.domain.states import Move, Reason, State
from service.experiments import logs
from service.experiments.store import ExperimentStore
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder


@dataclass
class SentEvent:
    event: str = "message"
    id: str = ""
    data: str = ""


def sent_events(answer: Response) -> Iterator[SentEvent]:
    """The events of a finished stream, by the rules of the HTML standard."""
    for block in answer.text.split("\n\n"):
        event, data = SentEvent(), []
        for line in block.splitlines():
            name, _, value = line.partition(":")
            if name == "data":
                data.append(value.removeprefix(" "))
            elif name in ("event", "id"):
                setattr(event, name, value.removeprefix(" "))
        if data:
            event.data = "\n".join(data)
            yield event


@pytest.fixture
def running(http, leader):
    """An experiment that runs its first attempt."""
    experiment_id = http.post("/v1/experiments", json=spec_dict()).json()["id"]
    leader.claim(leader.queue()[0], 1)
    ((row, _),) = leader.live()
    leader.apply(row, Move(State.RUNNING))
    return experiment_id


def write(settings, experiment_id, attempt, text):
    path = ExperimentFolder(settings.storage_root, experiment_id).attempt(attempt).log(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def finish(leader, store: ExperimentStore):
    ((row, _),) = leader.live()
    leader.apply(row, Move(State.FAILED, Reason.USER_ERROR, "oops"), AttemptEnd())


def test_a_log_is_read_on_from_an_offset(http, settings, running):
    path = f"/v1/experiments/{running}/logs"
    assert http.get(path).text == ""
    write(settings, running, 1, "first line\n")
    answer = http.get(path)
    assert (answer.text, answer.headers["X-Next-Offset"]) == ("first line\n", "11")
    write(settings, running, 1, "zweite Zeile: ü\n")
    assert http.get(f"{path}?offset=11").text == "zweite Zeile: ü\n"
    assert http.get(f"{path}?offset=99999").text == ""
    for bad in ("rank=1", "rank=-1", "offset=-1", "rank=x", "offset=99999999999999999999"):
        assert http.get(f"{path}?{bad}").status_code == 422, bad


def test_one_offset_runs_through_all_attempts(http, settings, leader, running):
    write(settings, running, 1, "one\n")
    ((row, _),) = leader.live()
    leader.apply(row, Move(State.QUEUED, Reason.WORKER_DIED), AttemptEnd())
    leader.claim(leader.queue()[0], 1)
    write(settings, running, 2, "two\n")
    path = f"/v1/experiments/{running}/logs"
    assert http.get(path).text == "one\n"
    assert http.get(f"{path}?offset=4").text == "two\n"


def test_a_stream_of_a_finished_log_ends_with_the_state(http, settings, leader, running):
    write(settings, running, 1, "a\nb\nno line break at the end")
    finish(leader, http.app.state.store)
    *lines, end = sent_events(http.get(f"/v1/experiments/{running}/logs/stream"))
    assert "\n".join(event.data for event in lines) == "a\nb\nno line break at the end"
    assert end.event == "end"
    assert '"FAILED"' in end.data


def test_a_stream_resumes_behind_the_last_event_it_was_given(http, settings, leader, running):
    write(settings, running, 1, "a\nb\n")
    finish(leader, http.app.state.store)
    again = http.get(f"/v1/experiments/{running}/logs/stream", headers={"Last-Event-ID": "2"})
    assert next(event.data for event in sent_events(again)) == "b"


def test_a_stream_follows_a_log_while_it_grows(http, settings, leader, running):
    def grow():
        for number in range(3):
            write(settings, running, 1, f"line {number}\nhalf ")
            write(settings, running, 1, "a line\n")
        finish(leader, http.app.state.store)

    writer = threading.Thread(target=grow)
    writer.start()
    answer = http.get(f"/v1/experiments/{running}/logs/stream")
    writer.join()
    *lines, _ = sent_events(answer)
    assert "\n".join(event.data for event in lines) == "\n".join(f"line {number}\nhalf a line" for number in range(3))


def test_events_are_streamed_with_their_number(http, leader, running):
    finish(leader, http.app.state.store)
    path = f"/v1/experiments/{running}/events/stream"
    *moves, end = sent_events(http.get(path))
    assert [event.event for event in moves] == ["move"] * 4
    assert end.event == "end"
    resumed = list(sent_events(http.get(path, headers={"Last-Event-ID": moves[2].id})))
    assert [event.id for event in resumed][:1] == [moves[3].id]


def test_a_line_is_never_sent_in_two_halves():
    assert logs.whole_lines(logs.Chunk(b"a\nhal", 5)) == logs.Chunk(b"a\n", 2)
    assert logs.whole_lines(logs.Chunk(b"hal", 3)) == logs.Chunk(b"", 0)
    endless = b"x" * logs.CHUNK_BYTES
    assert logs.whole_lines(logs.Chunk(endless, len(endless))).data == endless


def test_a_long_log_comes_in_small_messages_of_whole_lines(http, settings, leader, running):
    """What a cut connection loses is one message; and where a read ends, a line does not."""
    lines = [f"line {number}: ü" for number in range(40_000)]
    write(settings, running, 1, "\n".join([*lines, "x" * 3 * logs.MESSAGE_BYTES, "the end"]))
    finish(leader, http.app.state.store)
    *messages, _ = sent_events(http.get(f"/v1/experiments/{running}/logs/stream"))
    assert [line for one in messages for line in one.data.split("\n")][: len(lines)] == lines
    assert [one.data for one in messages][-2:] == ["x" * 3 * logs.MESSAGE_BYTES, "the end"]
    assert max(len(one.data.encode()) for one in messages[:-2]) < logs.MESSAGE_BYTES


def test_the_tail_is_the_end_of_the_log(settings):
    write(settings, "abc", 1, "".join(f"{number}\n" for number in range(50)))
    assert logs.tail(settings.storage_root, "abc", 1, lines=2) == "48\n49"
    assert logs.tail(settings.storage_root, "abc", 2) == ""
