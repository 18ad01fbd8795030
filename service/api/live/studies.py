"""The decisions and the progress of comparisons that are watched."""

import threading
from collections.abc import Mapping
from contextlib import suppress

from service.api.live.channels import Channel, Channels
from service.errors import StudyNotFound
from service.schemas.studies import DecisionView
from service.studies.store import StudySnapshot, StudyStore

MOST_DECISIONS = 200  # in one read


class StudyUpdates(Channels[StudySnapshot]):
    """Every study that is watched on this server."""

    def __init__(self, store: StudyStore, closing: threading.Event) -> None:
        super().__init__(closing)
        self._store = store

    async def decisions(self, channel: Channel[StudySnapshot], *, after_seq: int) -> list[DecisionView]:
        """The decisions behind a number, the oldest of them first."""

        def read() -> list[DecisionView]:
            with suppress(StudyNotFound):  # deleted in this moment: the next look tells
                found = self._store.decisions(channel.id, after_seq=after_seq, limit=MOST_DECISIONS)
                return [DecisionView.model_validate(row) for row in found]
            return []

        return await self.shared(channel, ("decisions", after_seq), read)

    def snapshots(self, wanted: Mapping[str, list[int]]) -> dict[str, StudySnapshot]:
        """Where these studies are."""
        return {one.id: one for one in self._store.snapshots(list(wanted))}
