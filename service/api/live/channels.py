"""One look for all who watch: whoever follows something waits here, without a thread and without asking anybody.

A single task looks at the rows of everything that is watched (one query), wakes those for whom something has changed,
and lets all who want the same piece share one read of it. So a hundred viewers of one experiment cost as much as one,
but for the bytes that each is sent.
"""

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError

log = logging.getLogger(__name__)
T = TypeVar("T")
SnapshotT = TypeVar("SnapshotT")

LOOK_SECONDS = 0.5
SHARED_READS = 16  # pieces that are kept for others until the next change
THREADS = 4  # of our own: slow storage must not take the threads that answer requests


@dataclass
class Channel(Generic[SnapshotT]):
    """One thing that is watched, and what all its viewers share. `snapshot` is None before the first look."""

    id: str
    snapshot: SnapshotT | None = None
    gone: bool = False  # it was deleted, or the server closes
    ranks: Counter[int] = field(default_factory=Counter)  # how many watch the log of each; -1: none
    turned: asyncio.Event = field(default_factory=asyncio.Event)
    reads: OrderedDict[Hashable, "asyncio.Future[Any]"] = field(default_factory=OrderedDict)

    def watched_ranks(self) -> list[int]:
        """The ranks whose log somebody follows."""
        return [rank for rank, count in self.ranks.items() if count and rank >= 0]

    async def other_than(self, seen: SnapshotT | None) -> SnapshotT | None:
        """What is to be seen, once that is something else; None where there is nothing more to wait for."""
        while not self.gone and (self.snapshot is None or self.snapshot == seen):
            await self.turned.wait()
        return None if self.gone else self.snapshot

    def turn(self, snapshot: SnapshotT | None, *, gone: bool = False) -> None:
        """Show something else to all who wait."""
        self.snapshot, self.gone = snapshot, gone
        self.reads.clear()
        self.turned.set()
        self.turned = asyncio.Event()


class Channels(ABC, Generic[SnapshotT]):
    """Everything of one kind that is watched on this server."""

    def __init__(self, closing: threading.Event) -> None:
        self._closing = closing
        self._channels: dict[str, Channel[SnapshotT]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._limiter: CapacityLimiter | None = None

    @abstractmethod
    def snapshots(self, wanted: Mapping[str, list[int]]) -> Mapping[str, SnapshotT]:
        """What is to be seen of these now, by id, with the logs of these ranks. What does not exist is left out."""

    @asynccontextmanager
    async def watching(self, of: str, rank: int = -1) -> AsyncIterator[Channel[SnapshotT]]:
        """The channel of something, while somebody watches it, and the log of one rank."""
        channel = self._channels.setdefault(of, Channel(of))
        channel.ranks[rank] += 1
        if self._looking is None or self._looking.done():
            self._limiter = CapacityLimiter(THREADS)
            self._looking = asyncio.create_task(self._look_for_ever())
        try:
            yield channel
        finally:
            channel.ranks[rank] -= 1
            if not channel.ranks.total():
                self._channels.pop(of, None)

    async def shared(self, channel: Channel[SnapshotT], key: Hashable, read: Callable[[], T]) -> T:
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
        while self._channels and not self._closing.is_set():
            try:
                await self._look()
            except SQLAlchemyError as error:
                log.warning("what is watched cannot be read, trying again: %s", error)
            await asyncio.sleep(LOOK_SECONDS)
        for channel in self._channels.values():
            channel.turn(channel.snapshot, gone=True)

    async def _look(self) -> None:
        wanted = {name: channel.watched_ranks() for name, channel in self._channels.items()}
        seen = await to_thread.run_sync(self.snapshots, wanted, limiter=self._limiter)
        for name in wanted:
            channel, snapshot = self._channels.get(name), seen.get(name)
            if channel is not None and (snapshot is None or snapshot != channel.snapshot):
                channel.turn(snapshot, gone=snapshot is None)
