"""What the API answers of sweeps: where they are, their trials in order and by rank, the best so far."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from service.domain.states import Desired, State
from service.domain.studies import StudyReason, StudyState
from service.schemas.base import View
from service.schemas.previews import PreviewView
from service.schemas.studies import TrialCounts
from service.schemas.sweeps import SweepLimits


class SweepLinks(View):
    """Where to go from here."""

    self: str
    trials: str
    decisions: str
    result: str
    experiments: str = Field(description="the list of its experiments")


class SweepView(View):
    """One sweep: what was asked for, and where it is."""

    id: str
    name: str
    project: str = Field(description="of its experiments")
    owner: str
    description: str = Field(description="what it is for, in Markdown")
    version: int = Field(description="grows with every change of it; also its ETag")
    state: StudyState
    desired: Desired = Field(description="what was last asked for: run, pause or cancel")
    reason: StudyReason | None = Field(description="why it ended, where that needs a reason")
    message: str = Field(description="the reason in words")
    actions: tuple[str, ...] = Field(description="what may be asked for in this state")
    method: str = Field(description="grid, random, tpe or cmaes")
    metric: str
    mode: Literal["max", "min"] = Field(description="where the best value is")
    seed: int = Field(description="what all proposals are drawn from")
    limits: SweepLimits = Field(description="as they are now")
    trials: TrialCounts
    created_at: datetime
    ended_at: datetime | None
    links: SweepLinks
    spec: dict[str, Any] = Field(description="what was asked for; empty in a list")


class SweepPage(View):
    """Some sweeps, and where the next ones are."""

    items: list[SweepView]
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")


class RankedTrialView(View):
    """One trial of a sweep, and what it reached."""

    number: int = Field(description="in the order in which they were proposed, from 0")
    params: dict[str, Any] = Field(description="the values of the searched fields, as overrides of the base")
    experiment_id: str | None = Field(description="null where the spec was refused, so that there is none")
    state: State | None = Field(description="of the experiment; null where there is none, or it was deleted")
    outcome: str | None = Field(
        description="OK, CANCELLED, DELETED, NO_METRIC, SPEC_INVALID, RETRY (waits to be queued once more), or the "
        "reason for which the experiment failed; null while it is open"
    )
    value: float | None = Field(description="of the metric, after the last epoch")
    message: str = Field(description="the outcome in words")


class SweepTrialView(RankedTrialView):
    """One trial of a sweep, and what its proposal knew."""

    informed_by: list[int] = Field(description="numbers of the trials that had ended, as far as the sampler used them")


class SweepTrialList(View):
    """The trials of a sweep."""

    items: list[SweepTrialView]
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")


class SweepResult(View):
    """What a sweep has found so far."""

    study_id: str
    name: str
    state: StudyState
    message: str
    method: str
    metric: str
    mode: Literal["max", "min"]
    limits: SweepLimits
    best: RankedTrialView | None = Field(
        description="the best trial so far, the first of several; null: none has ended"
    )
    fields: tuple[str, ...] = Field(description="that are searched over")
    trials: list[RankedTrialView] = Field(
        description="by rank: the best first, then those that failed or diverged, those that are open, those given up"
    )
    warnings: list[str]


class SweepPreview(View):
    """What a sweep would run. Nothing is stored."""

    trials: int = Field(description="experiments in all")
    epochs: int = Field(description="of all of them together, at most")
    examples: list[dict[str, Any]] = Field(description="values of the first trials; a sampler knows better later")
    first: PreviewView = Field(description="of the first trial")
