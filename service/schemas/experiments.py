"""What the API answers: views of the rows, with the words and units that users see."""

from datetime import datetime
from typing import Any

from pydantic import Field

from service.domain.pruning import PruneScope
from service.domain.states import Desired, Reason, State
from service.schemas.base import View
from service.schemas.previews import AdviceView


class ProgressView(View):
    """How far the running attempt is; what it was last seen at once it has ended."""

    phase: str = Field("", description="idle, starting, training, evaluating, stopping or ended")
    step: int = Field(0, description="optimizer steps done")
    total_steps: int = 0
    epoch: int = Field(0, description="passes over the training set done")
    epochs: int = 0
    images_per_second: float | None = Field(None, description="over all workers together")
    eta_seconds: float | None = Field(None, description="estimated time to the end, evaluation included")


class Links(View):
    """Where to go from here."""

    self: str
    logs: str
    events: str
    metrics: str
    mlflow: str | None = Field(None, description="the run's page, once there is a run")


class FilesView(View):
    """What an experiment keeps on shared storage."""

    bytes: int = Field(0, description="of all its files, as they were last measured")
    checkpoint_bytes: int = Field(0, description="of its checkpoints among them")
    measured_at: datetime | None = Field(None, description="null: not yet, or it has changed since")
    pruned: PruneScope | None = Field(None, description="what was removed of them, or is about to be")
    pruned_at: datetime | None = None


class ExperimentView(View):
    """One experiment: what was asked for, where it is, what it has reached."""

    id: str
    name: str
    project: str
    owner: str = Field(description="whose it is; `local` where it was submitted without a token")
    description: str = Field(description="what it is for, in Markdown")
    tags: dict[str, str]
    priority: int
    version: int = Field(description="grows with every change of it, but not with its progress; also its ETag")
    cloned_from: str | None = Field(description="the experiment that it was made from")
    study_id: str | None = Field(None, description="the comparison or sweep that it is of")
    probe: bool = Field(False, description="whether it trains nothing, and measures what a variant of it costs")
    semantics: int = Field(1, description="1: made before 0.2, val is the part held out; 2: val is cut from train")
    state: State
    desired: Desired = Field(description="what was last asked for: run, pause or cancel")
    reason: Reason | None = Field(description="why it is where it is, where that needs a reason")
    message: str = Field(description="the reason in words; after a failure with the last lines of the log")
    actions: tuple[str, ...] = Field(description="what may be asked for in this state")
    attempt: int = Field(description="number of the current or last attempt; 0 before the first")
    progress: ProgressView
    metrics: dict[str, float] = Field(description="last finite values, as in MLflow: val/top1, train/loss, …")
    summary: dict[str, Any] = Field(
        description="parameters, MACs, device, code and more, once it has ended; the speed where it ended well"
    )
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    mlflow_run_id: str | None
    files: FilesView = Field(FilesView())
    links: Links
    warnings: list[AdviceView] = Field(
        [],
        description="what looks odd about the recipe, as in a preview; only in the answer to a submission or a clone",
    )
    spec: dict[str, Any] = Field(description="what was asked for; empty in a list that was asked for without specs")


class ExperimentPage(View):
    """Some experiments, and where the next ones are."""

    items: list[ExperimentView]
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")
