"""The client's calls about sweeps: many trials of one experiment, and which are best."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.client.sweeping.handle import ROOT, SweepHandle
from service.client.transport import Transport, path
from service.domain.studies import StudyState
from service.schemas.sweep_views import SweepPage, SweepPreview, SweepView

if TYPE_CHECKING:
    from service.schemas.sweeps import SweepSpec

    Sweep = SweepSpec | Mapping[str, Any] | str | Path


class SweepCalls:
    """Part of `Client`."""

    wire: Transport

    def sweep(self, spec: "Sweep", *, idempotency_key: str | None = None) -> SweepHandle:
        """Submit a sweep: a spec, a dict of its fields, or the path of a YAML file.

        The same key gives the same sweep. Its trials are proposed and queued by and by.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return SweepHandle(self.wire, self.wire.post(SweepView, ROOT, json=_body(spec), headers=headers))

    def preview_sweep(self, spec: "Sweep") -> SweepPreview:
        """Say how many trials a sweep would run, and what the first one costs; nothing is stored."""
        return self.wire.post(SweepPreview, path(ROOT, "preview"), again=True, json=_body(spec))

    def get_sweep(self, sweep_id: str) -> SweepHandle:
        """One sweep."""
        return SweepHandle(self.wire, self.wire.get(SweepView, path(ROOT, sweep_id)))

    def sweeps(
        self, *, state: Sequence[StudyState | str] = (), owner: str | None = None, page_size: int = 50
    ) -> Iterator[SweepView]:
        """All sweeps that match, the newest first; pages are fetched as needed. The views have no specs."""
        query: dict[str, Any] = {"limit": page_size, "state": [*state]} | ({} if owner is None else {"owner": owner})
        while True:
            page = self.wire.get(SweepPage, ROOT, params=query)
            yield from page.items
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor


def _body(spec: "Sweep") -> Any:
    """What goes over the wire; a dict is left as it is, so that the server's answer points into what the user wrote."""
    if isinstance(spec, Mapping):
        return dict(spec)
    if isinstance(spec, str | Path):
        from service.client.comparing.specs import read_sweep

        spec = read_sweep(spec)
    return spec.model_dump(mode="json")
