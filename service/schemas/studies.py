"""What the API answers of comparisons: where they are, what belongs to them, what was decided. Results are beside."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from service.domain.states import Desired, State
from service.domain.studies import StudyReason, StudyState
from service.schemas.base import View
from service.schemas.previews import PreviewView


class TrialCounts(View):
    """How far the experiments of a study are."""

    waiting: int = Field(0, description="QUEUED or PAUSED")
    running: int = Field(0, description="that hold workers")
    succeeded: int = 0
    failed: int = Field(0, description="those that diverged among them: they have a result")
    cancelled: int = 0
    deleted: int = 0
    planned: int = Field(0, description="in all, as far as that is known: variants × seeds, and the probes of cost")


class StudyLinks(View):
    """Where to go from here."""

    self: str
    trials: str
    decisions: str
    result: str
    report: str
    figure: str
    experiments: str = Field(description="the list of its experiments")
    mlflow: str | None = Field(None, description="its page in MLflow: verdicts, table, figure; once there is one")
    mlflow_charts: str | None = Field(None, description="MLflow's charts of its variants, as a saved view")


class ComparisonView(View):
    """One comparison: what was asked for, and where it is."""

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
    variants: tuple[str, ...]
    control: str = Field(description="the variant that the others are compared with")
    metric: str
    seed: int = Field(description="what the seeds of its blocks are drawn from; 0 where its runs were there before it")
    seeds: int = Field(description="that are wanted now, for every variant")
    seeds_chosen: bool = Field(description="by the spread of the first ones, or by a user since")
    seeds_added: bool = Field(description="after results had been seen: only the anytime interval is told then")
    chosen: bool = Field(False, description="its runs had ended when it was asked (`from`)")
    replicates: str | None = Field(None, description="the comparison that it repeats with fresh seeds")
    trials: TrialCounts
    created_at: datetime
    ended_at: datetime | None
    links: StudyLinks
    spec: dict[str, Any] = Field(description="what was asked for; empty in a list")


class ComparisonPage(View):
    """Some comparisons, and where the next ones are."""

    items: list[ComparisonView]
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")


class ComparisonProgress(View):
    """Where a comparison is now, as its stream of events tells whenever that changes."""

    version: int
    state: StudyState
    reason: StudyReason | None
    message: str
    seeds: int = Field(description="that are wanted now, for every variant")
    trials: TrialCounts
    read: int = Field(description="runs whose results are known: `/result` tells something else once this has grown")


class TrialView(View):
    """One run of a comparison."""

    number: int = Field(description="in the order in which they were queued, from 0")
    variant: str
    kind: Literal["training", "probe"] = Field("training", description="probe: it measures what its variant costs")
    block: int = Field(description="the runs of one block have one seed; from 0; −1 for a probe")
    seed: int
    experiment_id: str
    state: State | None = Field(description="of the experiment; null where it was deleted")
    correct: int | None = Field(
        description="images that were classified right; null while a comparison hides its means"
    )
    images: int | None = Field(description="in the part that is compared")


class TrialList(View):
    """The runs of a comparison."""

    items: list[TrialView]
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")


class DecisionView(View):
    """Something that was decided of a study, written down in the transaction that carried it out."""

    seq: int
    kind: str = Field(description="move, trials, probe, seeds, wish, or asked: what a user wanted")
    from_state: StudyState | None
    to_state: StudyState | None
    payload: dict[str, Any]
    by: str
    at: datetime


class DecisionList(View):
    """What was decided, oldest first."""

    items: list[DecisionView]
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")


class PowerView(View):
    """What the planned seeds can show, where single runs of one variant spread so much."""

    sd: float = Field(description="standard deviation of one variant over seeds, as a share of the images")
    smallest_difference: float = Field(description="that is found with power 0.8")
    seeds_for_margin: int | None = Field(description="that find a difference of the margin; null without a margin")


class ComparisonPreview(View):
    """What a comparison would run. Nothing is stored."""

    runs: int = Field(description="experiments: variants × seeds; the most there may be under a rule of precision")
    first_runs: int = Field(description="before the number of seeds is chosen; else the same")
    epochs: int = Field(description="of all runs together")
    probes: int = Field(
        0, description="runs that measure cost, behind the others: one for each variant but the control"
    )
    probe_seconds: float = Field(0, description="that all probes measure, beside their start and their first steps")
    seeds: tuple[int, ...] = Field(description="the seeds of the first blocks")
    power: tuple[PowerView, ...] = Field(description="for runs whose results do not go together over seeds (ρ = 0)")
    variants: dict[str, PreviewView]
