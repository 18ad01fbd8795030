"""The logs and the changes of state of experiments that are watched."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.api.live.channels import Channel, Channels
from service.domain.states import TERMINAL, State
from service.errors import ExperimentNotFound
from service.experiments import logs
from service.experiments.store import ExperimentSnapshot, ExperimentStore
from service.schemas.history import EventView


@dataclass(frozen=True)
class Snapshot:
    """What is seen of one experiment at one moment; `sizes` are bytes of log by rank."""

    experiment: ExperimentSnapshot
    sizes: tuple[tuple[int, int], ...]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return State(self.experiment.state) in TERMINAL


class ExperimentUpdates(Channels[Snapshot]):
    """Every experiment that is watched on this server."""

    def __init__(self, store: ExperimentStore, storage: Path, closing: threading.Event) -> None:
        super().__init__(closing)
        self._store = store
        self._storage = storage

    async def lines(self, channel: Channel[Snapshot], snapshot: Snapshot, *, rank: int, offset: int) -> logs.Chunk:
        """The next piece of a log, in whole lines unless its file ends with half a one; empty if there is none yet.

        It ends where the log did when that was seen: viewers who read it at different moments go on from one place.
        """
        seen = dict(snapshot.sizes).get(rank)  # nobody had asked for this one's log when it was looked at
        limit = logs.CHUNK_BYTES if seen is None else max(0, min(logs.CHUNK_BYTES, seen - offset))
        place = (self._storage, channel.id, snapshot.experiment.attempt)
        read = partial(logs.read, *place, rank=rank, offset=offset, limit=limit)
        chunk = await self.shared(channel, ("log", rank, offset, limit), read)
        is_last = len(chunk.data) < logs.CHUNK_BYTES and (snapshot.ended or chunk.attempt < snapshot.experiment.attempt)
        return chunk if is_last else logs.whole_lines(chunk)

    async def events(self, channel: Channel[Snapshot], *, after_seq: int) -> list[EventView]:
        """The changes of state behind a number."""

        def read() -> list[EventView]:
            with suppress(ExperimentNotFound):  # deleted in this moment: the next look tells
                return [EventView.model_validate(row) for row in self._store.events(channel.id, after_seq=after_seq)]
            return []

        return await self.shared(channel, ("events", after_seq), read)

    def snapshots(self, wanted: Mapping[str, list[int]]) -> dict[str, Snapshot]:
        """The rows first: what a worker wrote before it ended is then among the bytes."""
        seen = self._store.snapshots(list(wanted))
        return {one.id: Snapshot(one, self._sizes(one, wanted[one.id])) for one in seen}

    def _sizes(self, one: ExperimentSnapshot, ranks: list[int]) -> tuple[tuple[int, int], ...]:
        return tuple((rank, logs.size(self._storage, one.id, one.attempt, rank=rank)) for rank in ranks)
