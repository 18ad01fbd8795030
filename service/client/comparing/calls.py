"""The client's calls about comparisons: variants of one experiment, trained with the same seeds, and a verdict."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.client.comparing.handle import ROOT, ComparisonHandle
from service.client.transport import Transport, path
from service.domain.studies import StudyState
from service.schemas.studies import ComparisonPage, ComparisonPreview, ComparisonView

if TYPE_CHECKING:
    from service.schemas.comparisons import ComparisonSpec

    Comparison = ComparisonSpec | Mapping[str, Any] | str | Path


class ComparisonCalls:
    """Part of `Client`."""

    wire: Transport

    def compare(self, spec: "Comparison", *, idempotency_key: str | None = None) -> ComparisonHandle:
        """Submit a comparison: a spec, a dict of its fields, or the path of a YAML file.

        The same key gives the same comparison. Its experiments are queued by and by.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return ComparisonHandle(self.wire, self.wire.post(ComparisonView, ROOT, json=_body(spec), headers=headers))

    def preview_comparison(self, spec: "Comparison") -> ComparisonPreview:
        """Say what a comparison would run, and which differences its seeds can show; nothing is stored."""
        return self.wire.post(ComparisonPreview, path(ROOT, "preview"), again=True, json=_body(spec))

    def comparison(self, comparison_id: str) -> ComparisonHandle:
        """One comparison."""
        return ComparisonHandle(self.wire, self.wire.get(ComparisonView, path(ROOT, comparison_id)))

    def comparisons(
        self, *, state: Sequence[StudyState | str] = (), owner: str | None = None, page_size: int = 50
    ) -> Iterator[ComparisonView]:
        """All comparisons that match, the newest first; pages are fetched as needed. The views have no specs."""
        query: dict[str, Any] = {"limit": page_size, "state": [*state]} | ({} if owner is None else {"owner": owner})
        while True:
            page = self.wire.get(ComparisonPage, ROOT, params=query)
            yield from page.items
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor


def _body(spec: "Comparison") -> Any:
    """What goes over the wire; a dict is left as it is, so that the server's answer points into what the user wrote."""
    if isinstance(spec, Mapping):
        return dict(spec)
    if isinstance(spec, str | Path):
        from service.client.comparing.specs import read_comparison

        spec = read_comparison(spec)
    return spec.model_dump(mode="json", exclude_unset=True)
