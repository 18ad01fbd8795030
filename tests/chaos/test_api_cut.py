"""Connections to the API are cut, also in the middle of a request and of an answer, while a client submits, waits and
follows: every experiment is there once, every line and event comes once and in order, and the client learns the end.
"""

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.client.client import Client
from service.cluster.base import Node
from service.database.operations import Operations
from service.domain.states import State
from service.schemas.history import EventView
from service.settings import Settings
from tests.chaos.lab import EPOCHS, ChaosLab, let_pass
from tests.chaos.proxy import CuttingProxy, cutting_proxy
from tests.support.live_service import live_service
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder

COUNT = 4
TRIES = 15  # of one call: about every fourth connection ends before it has brought an answer
STEPS_PER_LOOK = 10_000


@dataclass
class Told:
    """What a client was told of one experiment, each by a thread of its own."""

    id: str
    state: Future[State]
    lines: Future[list[str]]
    events: Future[list[EventView]]


@contextmanager
def cut_client(port: int, chance: random.Random) -> Iterator[tuple[Client, CuttingProxy]]:
    """A client whose every connection ends after a thousand bytes, or many thousands, or at a moment of chance."""
    stop = threading.Event()
    with cutting_proxy(port, lambda: int(10 ** chance.uniform(3, 5.5))) as proxy:

        def cut() -> None:
            while not stop.wait(chance.uniform(0.2, 1.5)):
                proxy.cut()

        cutter = threading.Thread(target=cut, daemon=True)
        cutter.start()
        try:
            with Client(f"http://127.0.0.1:{proxy.port}", tries=TRIES) as client:
                yield client, proxy
        finally:
            stop.set()
            cutter.join(timeout=10)


def submit_and_follow(client: Client, pool: ThreadPoolExecutor, specs: Sequence[Mapping[str, Any]]) -> list[Told]:
    """Submit all at once, wait for all and follow all."""
    handles = list(pool.map(client.submit, specs))
    return [
        Told(
            handle.id,
            pool.submit(lambda handle=handle: handle.wait(timeout=240).state),
            pool.submit(lambda handle=handle: list(handle.follow_logs())),
            pool.submit(lambda handle=handle: list(client.follow_events(handle.id))),
        )
        for handle in handles
    ]


def write_torn(path: Path, text: str, chance: random.Random) -> Iterator[None]:
    """Write a log in pieces that end anywhere, also within a line; one piece at each call of `next`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while text:
        size = chance.randrange(1, 600)
        with path.open("a", encoding="utf-8") as file:
            file.write(text[:size])
        text = text[size:]
        yield


def test_a_client_behind_cut_connections_misses_nothing_and_does_nothing_twice(
    settings: Settings, chance: random.Random
):
    endless = {"epochs": 1000, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    specs = [spec_dict(name=f"cut-{index}", train=endless) for index in range(COUNT)]
    with live_service(settings) as service, ThreadPoolExecutor(4 * COUNT) as pool:
        service.cluster.nodes = (Node("node-1", COUNT, 0.0, COUNT, 0.0),)
        with cut_client(urlsplit(service.url).port or 0, chance) as (client, proxy):
            told = submit_and_follow(client, pool, specs)
            texts = {one.id: "".join(f"{one.id} line {number}: ü\n" for number in range(400)) for one in told}
            wait_until(lambda: len(service.cluster.starts) == COUNT, "all to start")
            writers = [
                write_torn(ExperimentFolder(settings.storage_root, one.id).attempt(1).log(0), texts[one.id], chance)
                for one in told
            ]
            while [next(writer, True) for writer in writers] != [True] * COUNT:
                let_pass(0.05)
            service.cluster.steps_per_look = STEPS_PER_LOOK
            for one in told:
                assert one.state.result(timeout=60) is State.SUCCEEDED
                assert one.lines.result(timeout=60) == texts[one.id].splitlines()
                stored = [row.seq for row in service.store.events(one.id)]
                assert [event.seq for event in one.events.result(timeout=60)] == stored
                assert client.logs(one.id) == texts[one.id]
            assert sorted(view.name for view in client.list(page_size=3)) == [spec["name"] for spec in specs]
        assert (
            Operations(service.store.database).count_by_state()[State.SUCCEEDED] == COUNT == len(service.cluster.starts)
        )
        print(f"cut {proxy.cuts} times")
        assert proxy.cuts > COUNT


@pytest.mark.stack
@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_real_training_is_followed_over_cut_connections(lab: ChaosLab, chance: random.Random):
    project = f"api-cut-{chance.random()}"
    train = {"epochs": EPOCHS, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    specs = [spec_dict(name=f"cut-{index}", project=project, train=train) for index in range(COUNT)]
    with cut_client(lab.record.ports["api"], chance) as (client, proxy), ThreadPoolExecutor(4 * COUNT) as pool:
        told = submit_and_follow(client, pool, specs)
        for one in told:
            assert one.state.result(timeout=240) is State.SUCCEEDED
            assert one.lines.result(timeout=60) == lab.client.logs(one.id).removesuffix("\n").split("\n")
            assert one.events.result(timeout=60) == lab.client.events(one.id)
        assert proxy.cuts > COUNT
    assert len(list(lab.client.list(project=project))) == COUNT
    for one in told:
        lab.assert_sound(lab.client.get(one.id))
