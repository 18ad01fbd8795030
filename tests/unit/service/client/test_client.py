"""The Python client against the real app behind a real socket."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from cbam_core.spec import ExperimentSpec
from service.api.app import create_app
from service.client.client import Client
from service.client.errors import ApiError, ServerUnreachable
from service.client.experiment import ExperimentHandle
from service.client.waiting import WaitTimeout
from service.database.lease import Leadership
from service.dispatcher.store import AttemptEnd, DispatcherStore
from service.domain.states import ACTIONS, Move, Reason, State
from tests.support.live_server import serving
from tests.support.ports import free_port
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder


@pytest.fixture
def client(settings):
    with serving(create_app(settings)) as url, Client(url, tries=1) as client:
        yield client


@pytest.fixture
def leader(database):
    """What moves experiments in the place of a dispatcher."""
    leadership = Leadership(database, holder="test", seconds=60)
    leadership.renew()
    return DispatcherStore(database, leadership, backoff_seconds=0)


def run_first(leader):
    """The oldest experiment begins to run."""
    leader.claim(leader.queue()[0], 1)
    ((row, _),) = leader.live()
    leader.apply(row, Move(State.RUNNING))


def end(leader, state=State.SUCCEEDED, reason=None):
    ((row, _),) = leader.live()
    leader.apply(row, Move(state, reason), AttemptEnd())


@pytest.mark.parametrize("form", ["dict", "spec", "path"])
def test_a_spec_may_come_as_dict_as_spec_or_as_path(client, tmp_path, form):
    spec = ExperimentSpec.model_validate(spec_dict())
    path = tmp_path / "spec.yaml"
    path.write_text(spec.model_dump_json())  # JSON is YAML
    experiment = client.submit({"dict": spec_dict(), "spec": spec, "path": path}[form])
    assert experiment.state is State.QUEUED
    assert ExperimentSpec.model_validate(client.get(experiment.id).view.spec) == spec


def test_the_same_key_gives_the_same_experiment_and_no_key_a_new_one(client):
    first, again = (client.submit(spec_dict(), idempotency_key="k") for _ in range(2))
    assert first.id == again.id
    assert client.submit(spec_dict()).id not in {first.id, client.submit(spec_dict()).id}


def test_a_refusal_says_which_field_is_wrong(client):
    with pytest.raises(ApiError) as refusal:
        client.submit(spec_dict() | {"nmae": "x"})
    assert refusal.value.status == 422
    assert "/nmae" in str(refusal.value)


def test_pages_are_fetched_as_they_are_needed(client):
    ids = [client.submit(spec_dict(name=f"e{n}")).id for n in range(5)]
    assert [view.id for view in client.list(page_size=2)] == ids[::-1]
    assert [view.name for view in client.list(q="e3", state=[State.QUEUED])] == ["e3"]
    assert list(client.list(project="nobody's")) == []
    assert [view.spec for view in client.list(q="e3", spec=False)] == [{}]


def test_what_has_ended_is_not_waited_for(client, leader, monkeypatch):
    experiments = [client.submit(spec_dict()) for _ in range(2)]
    for _ in experiments:
        run_first(leader)
        end(leader)
    monkeypatch.setattr("service.client.waiting.LOOK_SECONDS", 60.0)
    assert [one.wait(timeout=30).state for one in experiments] == [State.SUCCEEDED] * 2


def test_wait_returns_when_it_has_ended_however_it_ends(client, leader):
    experiment = client.submit(spec_dict())
    with pytest.raises(WaitTimeout, match="QUEUED"):
        experiment.wait(timeout=0)
    run_first(leader)
    timer = threading.Timer(0.3, end, (leader, State.FAILED, Reason.USER_ERROR))
    timer.start()
    assert experiment.wait(timeout=30).state is State.FAILED
    timer.join()
    assert [event.to_state for event in client.events(experiment.id)][-1] is State.FAILED
    assert [attempt.reason for attempt in client.attempts(experiment.id)] == [Reason.USER_ERROR]


@contextmanager
def stopped():
    """Nobody listens there."""
    yield f"http://127.0.0.1:{free_port()}"


@contextmanager
def hanging():
    """The kernel takes the connection, and nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def not_ready():
    """It wishes to be left alone for longer than anybody waits here."""
    answer = JSONResponse({"detail": "not now"}, status_code=503, headers={"Retry-After": "50"})
    with serving(Starlette(routes=[Route("/{path:path}", lambda _: answer)])) as url:
        yield url


@pytest.mark.parametrize("away", [stopped, hanging, not_ready])
def test_a_wait_ends_in_time_also_while_the_server_is_away(client, away):
    experiment = client.submit(spec_dict())
    with away() as url, Client(url) as other:
        began = time.monotonic()
        with pytest.raises(WaitTimeout, match="was QUEUED when it was last seen"):
            ExperimentHandle(other, experiment.view).wait(timeout=1.5)
        assert 1.5 <= time.monotonic() - began < 40, "less than the 50 s that the server asks for"


def test_an_action_that_the_state_forbids_is_refused_with_the_legal_ones(client, leader):
    experiment = client.submit(spec_dict())
    assert experiment.cancel().view.desired == "cancel"
    (row,) = leader.unsettled()
    leader.apply(row, Move(State.CANCELLED, Reason.CANCELLED_BY_USER))
    with pytest.raises(ApiError) as refusal:
        client.pause(experiment.id)
    assert refusal.value.status == 409
    assert refusal.value.problem["legal"] == list(ACTIONS[State.CANCELLED])


def test_an_id_never_leaves_its_place_in_the_path(client):
    with pytest.raises(ApiError) as refusal:
        client.view("../../healthz?x=")
    assert refusal.value.status in (404, 422)


def test_a_log_is_read_whole_and_followed_to_the_end(client, leader, settings):
    experiment = client.submit(spec_dict())
    run_first(leader)
    log = ExperimentFolder(settings.storage_root, experiment.id).attempt(1).log(0)
    log.parent.mkdir(parents=True)
    text = "".join(f"line {n} ×\n\n" for n in range(50_000))  # several chunks
    log.write_text(text)
    assert client.logs(experiment.id) == text
    timer = threading.Timer(0.3, end, (leader,))
    timer.start()
    assert "\n".join(client.follow_logs(experiment.id)) + "\n" == text
    timer.join()
    assert [event.to_state for event in client.follow_events(experiment.id)][-1] is State.SUCCEEDED


def test_half_a_line_that_an_attempt_left_does_not_hold_up_what_the_next_one_says(client, leader, settings):
    """As a full disk leaves it, or a worker that was killed."""
    experiment = client.submit(spec_dict())
    run_first(leader)
    folder = ExperimentFolder(settings.storage_root, experiment.id)
    for attempt, text in ((1, "whole\nhalf a li"), (2, "again\nmo")):
        folder.attempt(attempt).path.mkdir(parents=True)
        folder.attempt(attempt).log(0).write_text(text)
    ((row, _),) = leader.live()
    leader.apply(row, Move(State.QUEUED, Reason.WORKER_DIED), AttemptEnd())
    run_first(leader)
    lines = client.follow_logs(experiment.id)
    assert [next(lines) for _ in range(3)] == ["whole", "half a li", "again"]
    end(leader)
    assert list(lines) == ["mo"]


def test_a_cut_stream_is_taken_up_where_it_was_cut():
    asked_from = []

    async def stream(request: Request) -> StreamingResponse:
        start = int(request.headers.get("Last-Event-ID", 0))
        asked_from.append(start)
        parts = [f"id: {n}\ndata: line {n}\n\n" for n in range(start + 1, start + 3)]
        parts.append("id: 99\ndata: torn" if len(asked_from) < 3 else 'event: end\ndata: {"state": "SUCCEEDED"}\n\n')
        return StreamingResponse(iter(parts), media_type="text/event-stream")

    with serving(Starlette(routes=[Route("/v1/experiments/x/logs/stream", stream)])) as url, Client(url) as client:
        assert list(client.follow_logs("x")) == [f"line {n}" for n in range(1, 7)]
    assert asked_from == [0, 2, 4]


def test_a_server_that_comes_late_is_waited_for(settings):
    port = free_port()
    with Client(f"http://127.0.0.1:{port}", tries=8) as client:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(client.submit(spec_dict())))
        thread.start()
        with serving(create_app(settings), port=port):
            thread.join(timeout=30)
        assert answers


def test_no_server_is_one_clear_error():
    with (
        Client(f"http://127.0.0.1:{free_port()}", tries=1) as client,
        pytest.raises(ServerUnreachable, match="cbam up"),
    ):
        client.view("x")


def test_an_answer_that_is_no_problem_document_is_still_a_clear_error():
    with serving(Starlette()) as url, Client(url) as client, pytest.raises(ApiError, match="404"):
        client.view("x")
