"""What the service itself goes by of a stored spec. One that was damaged by hand is told of, and is no other's trouble.

The whole spec is validated at a launch. This part of it is read of hundreds of rows at every tick, and takes a sixth of
the time.
"""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PositiveInt, ValidationError, model_validator

from cbam_core.pointers import error_items
from cbam_core.spec import Elastic, ResourcesSpec, RetrySpec, SpecModel, world_sizes


def _whole(part: SpecModel) -> SpecModel:
    """A default would be a guess: everything that is stored was written out."""
    missing = type(part).model_fields.keys() - part.model_fields_set
    if missing:
        raise ValueError(f"without {', '.join(sorted(missing))}")
    return part


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class StoredTrain(_Stored):
    """How long it trains, and in which steps."""

    epochs: PositiveInt
    global_batch_size: PositiveInt
    accumulate: PositiveInt


class SchedulingSpec(_Stored):
    """What decides when, where, how often and how long an experiment runs."""

    resources: Annotated[ResourcesSpec, AfterValidator(_whole)]
    train: StoredTrain
    retry: Annotated[RetrySpec, AfterValidator(_whole)]
    preemptible: bool
    deadline_minutes: float | None

    @property
    def workers(self) -> tuple[int, int]:
        """The least and the most."""
        wanted = self.resources.workers
        return (wanted.min, wanted.max) if isinstance(wanted, Elastic) else (wanted, wanted)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of workers an attempt may have, largest first."""
        return world_sizes(*self.workers, batch_size=self.train.global_batch_size, accumulate=self.train.accumulate)

    @model_validator(mode="after")
    def _batch_splits(self) -> Self:
        if not self.sizes:
            raise ValueError(f"a batch of {self.train.global_batch_size} cannot be split over its workers")
        return self


FALLBACK = SchedulingSpec(
    resources=ResourcesSpec(workers=1, cpus_per_worker=1, gpus_per_worker=0.0),
    train=StoredTrain(epochs=1, global_batch_size=1, accumulate=1),
    retry=RetrySpec(max_restarts=0),
    preemptible=False,
    deadline_minutes=None,
)
"""Stands in for a damaged one until its experiment has ended."""


def load_scheduling_spec(spec: Any) -> tuple[SchedulingSpec, str]:
    """What a stored spec says, and what is wrong with it: an empty text, or why it is `FALLBACK` in its place."""
    try:
        return SchedulingSpec.model_validate(spec), ""
    except ValidationError as error:
        found = error_items(error.errors(include_url=False), spec)
        return FALLBACK, "its stored spec is damaged: " + "; ".join(
            f"{where or '/'}: {words}" for where, words in found
        )
