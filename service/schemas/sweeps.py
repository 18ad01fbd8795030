"""What a user says about a sweep: which fields of an experiment are searched over, how, by which metric, how far."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from cbam_core.spec import Markdown, Name, SpecModel
from cbam_core.spec_model import TypeAlone
from service.domain.filters import PAGE_LIMIT
from service.domain.studies import StudyState
from service.schemas.submissions import Submission

MOST_TRIALS = 1000
MOST_CONCURRENT = 64
MOST_FIELDS = 20
MOST_CHOICES = 100
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:-]+$")]
FloatPair = Annotated[tuple[float, float], Field(strict=False)]
IntPair = Annotated[tuple[int, int], Field(strict=False)]
Points = Annotated[int, Field(ge=2, le=MOST_TRIALS)]
Scalar = str | int | float | bool | None
When = Annotated[
    dict[FieldName, Annotated[tuple[Scalar, ...], Field(strict=False, min_length=1, max_length=MOST_CHOICES)]],
    Field(min_length=1, max_length=MOST_FIELDS),
]
WHEN = "searched over only where other searched fields, which have choices, have one of these values"
POINTS = "values on a grid, evenly spaced from end to end; only for the method grid, which needs it of numbers"


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] < pair[1]:
        raise ValueError(f"[{pair[0]:g}, {pair[1]:g}] is no range: the first number must be below the second")
    return pair


class _Searched(SpecModel):
    when: When | None = Field(None, description=WHEN)


class LogRange(_Searched):
    """A number between two others, all orders of magnitude alike."""

    log: FloatPair = Field(description="lowest and highest value, both above 0")
    points: Points | None = Field(None, description=POINTS)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        low, _ = _rising(self.log)
        if low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, not at {low:g}")
        return self


class UniformRange(_Searched):
    """A number between two others, every part of the range alike; `float` is another name for `uniform`."""

    uniform: FloatPair = Field(description="lowest and highest value")
    points: Points | None = Field(None, description=POINTS)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        _rising(self.uniform)
        return self


class IntRange(_Searched):
    """A whole number between two others, both of them possible."""

    int: IntPair = Field(description="lowest and highest value")
    log: bool = Field(False, description="all orders of magnitude alike; the lowest value is 1 at least then")
    points: Points | None = Field(None, description=POINTS + "; without it every whole number")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        low, _ = _rising(self.int)
        if self.log and low < 1:
            raise ValueError(f"a logarithmic range of whole numbers begins at 1 or above, not at {low:g}")
        return self


class Choices(_Searched):
    """One of these values."""

    choice: Annotated[tuple[Any, ...], Field(strict=False, min_length=1, max_length=MOST_CHOICES)] = Field(
        description="values of the field, each once"
    )


def _kind(value: object) -> str | None:
    if isinstance(value, SpecModel):
        return {LogRange: "a_log_range", UniformRange: "a_range", IntRange: "an_int_range"}.get(type(value), "choices")
    if not isinstance(value, Mapping):
        return None
    kinds = {"choice": "choices", "int": "an_int_range", "uniform": "a_range", "log": "a_log_range"}
    return next((tag for name, tag in kinds.items() if name in value), None)


def _float_is_uniform(value: object) -> object:
    if isinstance(value, Mapping) and "float" in value and "uniform" not in value:
        return {"uniform" if name == "float" else name: item for name, item in value.items()}
    return value


Searched = Annotated[
    Annotated[LogRange, Tag("a_log_range")]
    | Annotated[UniformRange, Tag("a_range")]
    | Annotated[IntRange, Tag("an_int_range")]
    | Annotated[Choices, Tag("choices")],
    Discriminator(
        _kind,
        custom_error_type="no_range",
        custom_error_message="give {log: [low, high]}, {uniform: [low, high]}, {int: [low, high]} or {choice: [...]}",
    ),
    BeforeValidator(_float_is_uniform),
]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
SEED = "what all proposals are drawn from; another one gives others"


class Grid(SpecModel):
    """Every combination of the values, each once, in order."""

    type: Literal["grid"] = "grid"


class Random(SpecModel):
    """Values drawn at random, each trial independently of the others."""

    type: Literal["random"] = "random"
    seed: Seed = Field(0, description=SEED)


class TPE(SpecModel):
    """Values near those of the best trials so far: a tree-structured Parzen estimator (Bergstra et al. 2011)."""

    type: Literal["tpe"] = "tpe"
    seed: Seed = Field(0, description=SEED)


class CMAES(SpecModel):
    """An evolution strategy that adapts its covariance (Hansen 2016), for numbers alone: the package `cmaes`."""

    type: Literal["cmaes"] = "cmaes"
    seed: Seed = Field(0, description=SEED)


Method = Annotated[Annotated[Grid | Random | TPE | CMAES, Discriminator("type")], TypeAlone]


class SweepLimits(SpecModel):
    """How far a sweep goes; they hold at every moment."""

    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = Field(
        None, description="in all, those that failed among them; a grid has one for each of its points where left out"
    )
    concurrent: Annotated[int, Field(ge=1, le=MOST_CONCURRENT)] = Field(
        8, description="trials that wait or train at a time"
    )
    failed: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = Field(
        5, description="trials that fail one after the other end the sweep; those that diverged only rank last"
    )
    hours: Annotated[float, Field(gt=0, le=24 * 366)] | None = Field(
        None, description="after its submission: what trains then is cancelled, and the best so far is the result"
    )


def _no_test(metric: object) -> object:
    if isinstance(metric, str) and metric.startswith("test"):
        raise ValueError(
            "what is searched for on test is fitted to test, and nothing is left to measure it on: search by val/top1, "
            "and compare the best with `cbam compare`, which measures on test"
        )
    return metric


class SweepSpec(SpecModel):
    """A sweep: many trials of one experiment, each with other values of some fields, and which are best."""

    name: Name = Field(description="name of the sweep; its experiments are called after it")
    project: Name | None = Field(None, description="project of its experiments; null: the one that `base` names")
    description: Markdown = Field("", description="what it is for, in Markdown")
    base: Submission = Field(description="a whole spec, or a template with overrides: what all trials share")
    search: Annotated[dict[FieldName, Searched], Field(min_length=1, max_length=MOST_FIELDS)] = Field(
        description="by the dotted path of a field, the values that it may have",
        examples=[
            {"train.optimizer.lr": {"log": [0.01, 1.0]}, "model.attention.type": {"choice": ["none", "se", "cbam"]}}
        ],
    )
    method: Method = Field(TPE(), description="grid, random, tpe or cmaes; `random` is short for {type: random}")
    metric: Annotated[Literal["val/top1", "val/top5", "val/loss"], BeforeValidator(_no_test)] = Field(
        "val/top1", description="what the trials are ranked by, after their last epoch"
    )
    mode: Literal["max", "min"] | None = Field(
        None, description="max where the largest value is best; null: as the metric wants it"
    )
    limits: SweepLimits = Field(SweepLimits(), description="how far it goes")

    @model_validator(mode="after")
    def _sense(self) -> Self:
        if self.mode is not None and self.mode != _wanted(self.metric):
            raise ValueError(f"{self.metric} is best at its {_wanted(self.metric)}imum: mode {_wanted(self.metric)}")
        return self

    @property
    def direction(self) -> Literal["max", "min"]:
        """Where the best value is."""
        return _wanted(self.metric)


def _wanted(metric: str) -> Literal["max", "min"]:
    return "min" if metric == "val/loss" else "max"


class SweepQuery(BaseModel):
    """A narrowing and a page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: list[StudyState] = Field([], max_length=len(StudyState), description="any of these; repeat it for several")
    owner: Annotated[str, StringConstraints(max_length=128)] | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT)] = 50
    cursor: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        None, description="`next_cursor` of the page before"
    )


class LimitChanges(BaseModel):
    """Limits that change; what is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, json_schema_extra={"minProperties": 1})

    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = Field(
        None, description="in all, as many as it has begun at least"
    )
    concurrent: Annotated[int, Field(ge=1, le=MOST_CONCURRENT)] | None = Field(None, description="at a time")
    failed: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = Field(None, description="one after the other")
    hours: Annotated[float, Field(gt=0, le=24 * 366)] | None = Field(
        None, description="after its submission; null takes the limit away"
    )


class SweepChanges(BaseModel):
    """What of a sweep may be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    limits: LimitChanges
