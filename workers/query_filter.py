"""Keeps the query of a URL out of every span: a user may have put a secret into it."""

from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import Attributes

QUERY = "url.query"


class WithoutQuery(Sampler):
    """Decides as another sampler does. The SDK gives a span the attributes that its sampler returns, and no others."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        *rest: Any,
        **named: Any,
    ) -> SamplingResult:
        """The other sampler's decision about the span without its query."""
        kept = {key: value for key, value in (attributes or {}).items() if key != QUERY}
        return self.sampler.should_sample(parent_context, trace_id, name, kind, kept, *rest, **named)

    def get_description(self) -> str:
        """The other sampler's."""
        return self.sampler.get_description()
