"""Many viewers of one log at once, over real HTTP: no thread each, no query each, and nothing lost."""

import asyncio
import threading
import time
from contextlib import ExitStack

import anyio.to_thread
import httpx2
import pytest

from service.api.app import create_app
from service.api.live import channels, following, seats
from service.api.live.experiments import ExperimentUpdates
from service.api.middleware import authentication
from service.auth.tokens import Tokens
from service.dispatcher.store import AttemptEnd, DispatcherStore
from service.domain.roles import Role
from service.domain.states import Move, Reason, State
from service.experiments import logs
from service.experiments.store import ExperimentStore
from service.schemas.auth import TokenRequest
from tests.support.live_server import serving
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder

VIEWERS = 100
LINES = 40


@pytest.fixture
def running(store: ExperimentStore, dispatcher_store: DispatcherStore) -> str:
    """An experiment that runs."""
    row, _ = store.submit(spec())
    dispatcher_store.claim(dispatcher_store.queue()[0], 1)
    ((row, _),) = dispatcher_store.live()
    dispatcher_store.apply(row, Move(State.RUNNING))
    return row.id


async def follow(client: httpx2.AsyncClient, url: str, *, last_id: str = "") -> tuple[list[str], str]:
    """All lines of a stream up to its end, and the last id."""
    lines, event, end = [], "", ""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "data" and event == "end":
                end = value
            elif name == "data":
                lines.append(value)
    assert '"FAILED"' in end
    return lines, end


async def follow_many(base: str, path: str, count: int) -> list[tuple[list[str], str]]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=base, timeout=60, limits=limits) as client:
        return await asyncio.gather(*(follow(client, path) for _ in range(count)))


def test_a_hundred_viewers_see_every_line_and_share_the_work(
    settings, database, store, dispatcher_store, running, monkeypatch
):
    reads, looks, most_threads = [], [], 0
    real_read, real_snapshots = logs.read, ExperimentStore.snapshots
    monkeypatch.setattr(logs, "read", lambda *args, **more: reads.append(1) or real_read(*args, **more))
    monkeypatch.setattr(ExperimentStore, "snapshots", lambda self, ids: looks.append(1) or real_snapshots(self, ids))
    log = ExperimentFolder(settings.storage_root, running).attempt(1).log(0)
    log.parent.mkdir(parents=True)
    before = threading.active_count()

    def train():
        nonlocal most_threads
        with log.open("a") as file:
            for number in range(LINES):
                print(f"line {number}", file=file, flush=True)
                time.sleep(0.05)  # the pace of a training, not a wait for anything
                most_threads = max(most_threads, threading.active_count())
        ((row, _),) = dispatcher_store.live()
        dispatcher_store.apply(row, Move(State.FAILED, Reason.USER_ERROR, "oops"), AttemptEnd())

    with serving(create_app(settings)) as url:
        writer = threading.Thread(target=train)
        writer.start()
        seen = asyncio.run(follow_many(url, f"/v1/experiments/{running}/logs/stream", VIEWERS))
        writer.join()
    expected = [f"line {number}" for number in range(LINES)]
    assert all(lines == expected for lines, _ in seen)
    turns = len(looks)
    assert len(reads) <= 4 * turns, f"{len(reads)} reads in {turns} looks: viewers do not share them"
    # the server, the writer, asyncio's own, and the pool that requests begin in (40 at most)
    assert most_threads - before <= 45 + channels.THREADS, "a viewer costs a thread"


def test_who_reads_late_is_given_no_more_than_who_read_early(settings, store, running):
    """Else each of them would go on from a place of its own, and never again read together with others."""
    log = ExperimentFolder(settings.storage_root, running).attempt(1).log(0)
    log.parent.mkdir(parents=True)
    log.write_text("seen\n")
    updates = ExperimentUpdates(store, settings.storage_root, threading.Event())

    async def read_early_and_late() -> list[logs.Chunk]:
        async with updates.watching(running, rank=0) as channel:
            snapshot = await channel.other_than(None)
            early = await updates.lines(channel, snapshot, rank=0, offset=0)
            with log.open("a") as file:
                file.write("not yet seen\n")
            channel.reads.clear()  # as when many others have read something else meanwhile
            late = await updates.lines(channel, snapshot, rank=0, offset=0)
            nothing = await updates.lines(channel, snapshot, rank=0, offset=late.next_offset)
            following = await updates.lines(
                channel, await channel.other_than(snapshot), rank=0, offset=late.next_offset
            )
        return [early, late, nothing, following]

    read = asyncio.run(read_early_and_late())
    assert [chunk.data for chunk in read] == [b"seen\n", b"seen\n", b"", b"not yet seen\n"]


def test_viewers_of_events_share_the_work_too(settings, database, store, dispatcher_store, running, monkeypatch):
    queries = []
    real = ExperimentStore.events
    monkeypatch.setattr(
        ExperimentStore, "events", lambda self, *args, **more: queries.append(1) or real(self, *args, **more)
    )

    def end():
        ((row, _),) = dispatcher_store.live()
        dispatcher_store.apply(row, Move(State.FAILED, Reason.USER_ERROR), AttemptEnd())

    with serving(create_app(settings)) as url:
        timer = threading.Timer(1.0, end)
        timer.start()
        seen = asyncio.run(follow_many(url, f"/v1/experiments/{running}/events/stream", 20))
        timer.join()
    assert {len(lines) for lines, _ in seen} == {4}
    assert len(queries) <= 8


def test_a_viewer_that_leaves_takes_nothing_from_the_others(settings, database, store, dispatcher_store, running):
    log = ExperimentFolder(settings.storage_root, running).attempt(1).log(0)
    log.parent.mkdir(parents=True)
    log.write_text("first\n")
    path = f"/v1/experiments/{running}/logs/stream"

    async def leave_one(base: str) -> tuple[list[str], str]:
        async with httpx2.AsyncClient(base_url=base, timeout=30) as client:
            async with client.stream("GET", path) as leaver:
                async for line in leaver.aiter_lines():
                    if line == "data: first":
                        break
                stayer = asyncio.create_task(follow(client, path))
                await asyncio.sleep(0)
            await anyio.to_thread.run_sync(finish)
            return await stayer

    def finish():
        with log.open("a") as file:
            file.write("second\n")
        ((row, _),) = dispatcher_store.live()
        dispatcher_store.apply(row, Move(State.FAILED, Reason.USER_ERROR), AttemptEnd())

    with serving(create_app(settings)) as url:
        lines, _ = asyncio.run(leave_one(url))
    assert lines == ["first", "second"]


def test_a_stream_of_what_is_deleted_ends(settings, database, store, dispatcher_store, running):
    """The row goes while somebody watches: the stream ends without an `end`, and the client learns of it by a 404."""
    path = f"/v1/experiments/{running}/events/stream"

    def delete():
        with database.writing() as session:
            session.delete(store.get(running))

    with serving(create_app(settings)) as url, httpx2.stream("GET", url + path, timeout=30) as answer:
        chunks = answer.iter_text()
        assert "event: move" in next(chunks)
        delete()
        assert "event: end" not in "".join(chunks)
        assert httpx2.get(url + path).status_code == 404


def test_more_viewers_than_a_server_takes_are_told_to_come_back(settings, database, store, running, monkeypatch):
    monkeypatch.setattr(seats, "MOST_VIEWERS", 1)
    path = f"/v1/experiments/{running}/events/stream"
    with serving(create_app(settings)) as url, httpx2.stream("GET", url + path, timeout=30) as answer:
        chunks = answer.iter_text()  # held: what nobody holds is closed
        next(chunks)
        refused = httpx2.get(url + path)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")


@pytest.fixture
def keys(database):
    """What two viewers say to be let in, by name, with the ids of their tokens."""
    made = {name: Tokens(database).create(TokenRequest(name=name, role=Role.VIEWER), by="test") for name in "ab"}
    return {name: ({"Authorization": f"Bearer {secret}"}, row.id) for name, (row, secret) in made.items()}


@pytest.mark.parametrize("settings", [{"streams_per_caller": 2}], indirect=True)
def test_no_viewer_keeps_the_others_out(settings, database, store, running, keys):
    path = f"/v1/experiments/{running}/events/stream"
    (of_a, _), (of_b, _) = keys["a"], keys["b"]
    with serving(create_app(settings)) as url, ExitStack() as stack:

        def follow_on(headers, place=path):
            answer = stack.enter_context(httpx2.stream("GET", url + place, headers=headers, timeout=30))
            return answer.status_code, answer.iter_text()

        held = [follow_on(of_a), follow_on(of_a, f"/v1/experiments/{running}/logs/stream")]
        refused = httpx2.get(url + path, headers=of_a)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
        assert "you follow 2 logs and events already" in refused.json()["detail"]
        assert [status for status, _ in [*held, follow_on(of_b)]] == [200, 200, 200]
        stack.close()
        wait_until(lambda: follow_on(of_a)[0] == 200, "a place to be free")


def test_a_revoked_token_s_stream_ends_though_nothing_happens(settings, database, store, running, keys, monkeypatch):
    monkeypatch.setattr(authentication, "STAY_SECONDS", 0.2)
    monkeypatch.setattr(following, "STAY_SECONDS", 0.2)
    (of_a, token_id), (of_b, _) = keys["a"], keys["b"]
    path = f"/v1/experiments/{running}/events/stream"
    with serving(create_app(settings)) as url, ExitStack() as stack:
        answers = [
            stack.enter_context(httpx2.stream("GET", url + path, headers=headers, timeout=30))
            for headers in (of_a, of_a, of_b)
        ]
        texts = [answer.iter_text() for answer in answers]
        assert all("event: move" in next(text) for text in texts)
        Tokens(database).revoke(token_id)
        assert "event: end" not in "".join(texts[0]) + "".join(texts[1])
        assert store.get(running).state == State.RUNNING, "nothing has happened"
        assert httpx2.get(url + path, headers=of_a).status_code == 401
        assert not answers[2].is_closed
