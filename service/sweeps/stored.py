"""What the stored rows of a sweep say."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from cbam_core.errors import SpecError
from service.database.models.studies import Study
from service.schemas.sweeps import SweepLimits, SweepSpec
from service.sweeps.decide import Limits

BASE = "base"  # of `Study.specs`


def sweep_of(study: Study) -> SweepSpec:
    """The spec of a stored sweep. Raises SpecError for one that this version cannot read."""
    try:
        return SweepSpec.model_validate(study.spec, strict=False)
    except ValidationError as error:
        raise SpecError(f"the stored spec of the sweep cannot be read: {error}") from error


def limits_of(study: Study) -> Limits:
    """Its limits as they are now. Raises SpecError where they cannot be read."""
    try:
        limits = SweepLimits.model_validate(study.limits, strict=False)
    except ValidationError as error:
        raise SpecError(f"the stored limits of the sweep cannot be read: {error}") from error
    return Limits(trials=limits.trials or 0, concurrent=limits.concurrent, failed=limits.failed, hours=limits.hours)


def shown_limits(study: Study) -> SweepLimits:
    """The same for those who look; the defaults where they cannot be read."""
    try:
        return SweepLimits.model_validate(study.limits, strict=False)
    except ValidationError:
        return SweepLimits()


def metric_of(spec: object) -> str:
    """What is ranked by; empty where that cannot be read."""
    metric = _mapping(spec).get("metric")
    return metric if isinstance(metric, str) else ""


def mode_of(spec: object) -> Literal["max", "min"]:
    """Where the best value is."""
    return "min" if metric_of(spec).endswith("/loss") else "max"


def method_of(spec: object) -> str:
    """How values are proposed; empty where that cannot be read."""
    method = _mapping(_mapping(spec).get("method")).get("type")
    return method if isinstance(method, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
