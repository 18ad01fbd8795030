"""What the stored spec of a comparison says, field by field: a damaged or older row is shown as far as it can be."""

from collections.abc import Mapping
from typing import Any


def variants_of(spec: object) -> tuple[str, ...]:
    """The names of the variants in their order; none where they cannot be read."""
    return tuple(_mapping(_mapping(spec).get("variants")) or _mapping(_mapping(spec).get("from")))


def control_of(spec: object) -> str:
    """The variant that the others are compared with; empty where that cannot be read."""
    named = _mapping(spec).get("control")
    return named if isinstance(named, str) else next(iter(variants_of(spec)), "")


def metric_of(spec: object) -> str:
    """What is compared; empty where that cannot be read."""
    metric = _mapping(spec).get("metric")
    return metric if isinstance(metric, str) else ""


def has_rule(spec: object) -> bool:
    """Whether a rule of precision chooses the number of seeds."""
    return isinstance(_mapping(spec).get("seeds"), Mapping)


def has_probe(spec: object) -> bool:
    """Whether cost is measured by a probe; it was not before there were any."""
    return _mapping(spec).get("probe") is True


def is_before_probes(spec: object) -> bool:
    """Whether it was submitted before there were any."""
    return "probe" not in _mapping(spec)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
