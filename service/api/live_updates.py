"""One look for all who watch: whoever follows an experiment waits here, without a thread and without asking anybody.

A single task looks at the rows of everything that is watched (one query) and at the sizes of the logs, wakes those for
whom something has changed, and lets all who want the same piece of a log share one read of it. So a hundred viewers of
one experiment cost as much as one, but for the bytes that each is sent.
"""

import asyncio
import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError

from service.domain.roles import Caller
from service.domain.states import TERMINAL, State
from service.errors import ExperimentNotFound, TooManyOwnStreams, TooManyStreams
from service.experiments import logs
from service.experiments.store import ExperimentSnapshot, ExperimentStore
from service.schemas.history import EventView

log = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_SECONDS = 0.5
MOST_VIEWERS = 1000
SHARED_READS = 16  # pieces that are kept for others until the next change
THREADS = 4  # of our own: slow storage must not take the threads that answer requests


@dataclass(frozen=True)
class Snapshot:
    """What is seen of one experiment at one moment; `sizes` are bytes of log by rank."""

    experiment: ExperimentSnapshot
    sizes: tuple[tuple[int, int], ...]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return State(self.experiment.state) in TERMINAL


@dataclass
class Channel:
    """One experiment that is watched, and what all its viewers share. `snapshot` is None before the first look."""

    experiment_id: str
    snapshot: Snapshot | None = None
    gone: bool = False  # the experiment was deleted, or the server closes
    ranks: Counter[int] = field(default_factory=Counter)  # how many watch the log of each; -1: none
    turned: asyncio.Event = field(default_factory=asyncio.Event)
    reads: OrderedDict[Hashable, "asyncio.Future[Any]"] = field(default_factory=OrderedDict)

    def watched_ranks(self) -> list[int]:
        """The ranks whose log somebody follows."""
        return [rank for rank, count in self.ranks.items() if count and rank >= 0]

    async def other_than(self, seen: Snapshot | None) -> Snapshot | None:
        """What is to be seen, once that is something else; None where there is nothing more to wait for."""
        while not self.gone and (self.snapshot is None or self.snapshot == seen):
            await self.turned.wait()
        return None if self.gone else self.snapshot

    def turn(self, snapshot: Snapshot | None, *, gone: bool = False) -> None:
        """Show something else to all who wait."""
        self.snapshot, self.gone = snapshot, gone
        self.reads.clear()
        self.turned.set()
        self.turned = asyncio.Event()


class LiveUpdates:
    """Everything that is watched on this server."""

    def __init__(self, store: ExperimentStore, storage: Path, closing: threading.Event, *, most_of_one: int) -> None:
        self._store = store
        self._storage = storage
        self._closing = closing
        self._most_of_one = most_of_one
        self._seats: Counter[str] = Counter()  # by the name of who follows
        self._feeds: dict[str, Channel] = {}
        self._looking: asyncio.Task[None] | None = None
        self._limiter: CapacityLimiter | None = None

    @contextmanager
    def seat(self, caller: Caller) -> Iterator[None]:
        """Room for one stream, taken before it begins; on their own machine one user may have all.

        Raises TooManyStreams where no more viewers are taken, TooManyOwnStreams where no more of this one are.
        """
        if self._seats.total() >= MOST_VIEWERS:
            raise TooManyStreams
        if caller.token_id is not None and self._seats[caller.name] >= self._most_of_one:
            raise TooManyOwnStreams(f"you follow {self._most_of_one} logs and events already; end one of them first")
        self._seats[caller.name] += 1
        try:
            yield
        finally:
            self._seats[caller.name] -= 1
            self._seats += Counter()  # forgets who has none

    @asynccontextmanager
    async def watching(self, experiment_id: str, rank: int = -1) -> AsyncIterator[Channel]:
        """The feed of an experiment, while somebody watches it, and the log of one rank."""
        channel = self._feeds.setdefault(experiment_id, Channel(experiment_id))
        channel.ranks[rank] += 1
        if self._looking is None or self._looking.done():
            self._limiter = CapacityLimiter(THREADS)
            self._looking = asyncio.create_task(self._look_for_ever())
        try:
            yield channel
        finally:
            channel.ranks[rank] -= 1
            if not channel.ranks.total():
                self._feeds.pop(experiment_id, None)

    async def lines(self, channel: Channel, snapshot: Snapshot, *, rank: int, offset: int) -> logs.Chunk:
        """The next piece of a log, in whole lines unless its file ends with half a one; empty if there is none yet.

        It ends where the log did when that was seen: viewers who read it at different moments go on from one place.
        """
        seen = dict(snapshot.sizes).get(rank)  # nobody had asked for this one's log when it was looked at
        limit = logs.CHUNK_BYTES if seen is None else max(0, min(logs.CHUNK_BYTES, seen - offset))
        place = (self._storage, channel.experiment_id, snapshot.experiment.attempt)
        read = partial(logs.read, *place, rank=rank, offset=offset, limit=limit)
        chunk = await self._shared(channel, ("log", rank, offset, limit), read)
        is_last = len(chunk.data) < logs.CHUNK_BYTES and (snapshot.ended or chunk.attempt < snapshot.experiment.attempt)
        return chunk if is_last else logs.whole_lines(chunk)

    async def events(self, channel: Channel, *, after_seq: int) -> list[EventView]:
        """The changes of state behind a number."""

        def read() -> list[EventView]:
            with suppress(ExperimentNotFound):  # deleted in this moment: the next look tells
                return [
                    EventView.model_validate(row)
                    for row in self._store.events(channel.experiment_id, after_seq=after_seq)
                ]
            return []

        return await self._shared(channel, ("events", after_seq), read)

    async def _shared(self, channel: Channel, key: Hashable, read: Callable[[], T]) -> T:
        """What `read` gives in a thread; whoever asks for the same until the next change gets the same."""
        future = channel.reads.get(key)
        if future is None:
            future = channel.reads[key] = asyncio.ensure_future(to_thread.run_sync(read, limiter=self._limiter))
            while len(channel.reads) > SHARED_READS:
                channel.reads.popitem(last=False)
        result: T = await asyncio.shield(future)  # a viewer that leaves must not take it from the others
        return result

    async def _look_for_ever(self) -> None:
        """Look while there is anybody to look for."""
        while self._feeds and not self._closing.is_set():
            try:
                await self._look()
            except SQLAlchemyError as error:
                log.warning("what is watched cannot be read, trying again: %s", error)
            await asyncio.sleep(LOOK_SECONDS)
        for channel in self._feeds.values():
            channel.turn(channel.snapshot, gone=True)

    async def _look(self) -> None:
        wanted = {name: channel.watched_ranks() for name, channel in self._feeds.items()}
        seen = await to_thread.run_sync(self._snapshots, wanted, limiter=self._limiter)
        for experiment_id in wanted:
            channel, snapshot = self._feeds.get(experiment_id), seen.get(experiment_id)
            if channel is not None and (snapshot is None or snapshot != channel.snapshot):
                channel.turn(snapshot, gone=snapshot is None)

    def _snapshots(self, wanted: dict[str, list[int]]) -> dict[str, Snapshot]:
        """The rows first: what a worker wrote before it ended is then among the bytes."""
        snapshots = self._store.snapshots(list(wanted))
        return {one.id: Snapshot(one, self._sizes(one, wanted[one.id])) for one in snapshots}

    def _sizes(self, one: ExperimentSnapshot, ranks: list[int]) -> tuple[tuple[int, int], ...]:
        return tuple((rank, logs.size(self._storage, one.id, one.attempt, rank=rank)) for rank in ranks)
