"""What the API answers: views of the rows, with the words and units that users see."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from service.domain.states import ACTIONS, Desired, Reason, State

if TYPE_CHECKING:  # a client reads these views, and needs no database
    from service.database.models import Experiment
    from service.settings import Settings


class View(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


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
    state: State
    desired: Desired = Field(description="what was last asked for: run, pause or cancel")
    reason: Reason | None = Field(description="why it is where it is, where that needs a reason")
    message: str = Field(description="the reason in words; after a failure with the last lines of the log")
    actions: tuple[str, ...] = Field(description="what may be asked for in this state")
    attempt: int = Field(description="number of the current or last attempt; 0 before the first")
    progress: ProgressView
    metrics: dict[str, float] = Field(description="last finite values, as in MLflow: val/top1, train/loss, …")
    summary: dict[str, Any] = Field(description="parameters, MACs, wall seconds and more, once it has ended well")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    mlflow_run_id: str | None
    links: Links
    spec: dict[str, Any] = Field(description="what was asked for; empty in a list that was asked for without specs")

    @classmethod
    def of(cls, row: "Experiment", settings: "Settings", *, with_spec: bool = True) -> "ExperimentView":
        """The view of a row, which need not have a spec where none is to be shown."""
        path = f"/v1/experiments/{row.id}"
        run = f"{settings.mlflow_public_url}/#/runs/{row.mlflow_run_id}"
        state = State(row.state)
        spec = row.spec if with_spec and isinstance(row.spec, dict) else {}  # else it was damaged by hand
        fields = {name: getattr(row, name) for name in cls.model_fields if name != "spec" and hasattr(row, name)}
        return cls(
            **fields
            | {
                "spec": spec,
                "state": state,
                "actions": ACTIONS[state],
                "progress": ProgressView.model_validate(row.progress),
                "metrics": {key: value for key, value in row.progress.get("metrics", {}).items() if value is not None},
                "links": Links(
                    self=path,
                    logs=f"{path}/logs",
                    events=f"{path}/events",
                    metrics=f"{path}/metrics",
                    mlflow=run if row.mlflow_run_id and settings.mlflow_public_url else None,
                ),
            }
        )


class ExperimentPage(View):
    """Some experiments, and where the next ones are."""

    items: list[ExperimentView]
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")


class EventView(View):
    """One change of state."""

    seq: int
    attempt: int
    from_state: State | None
    to_state: State
    reason: Reason | None
    message: str
    by: str = Field(description="who asked for it, or the dispatcher that made the move")
    at: datetime


class AttemptView(View):
    """One try at the experiment by one gang of workers."""

    number: int
    reason: Reason | None
    message: str
    resumed_from_step: int | None
    last_step: int
    node_ids: list[str]
    started_at: datetime
    ended_at: datetime | None


class EventList(View):
    """The history of one experiment, oldest first."""

    items: list[EventView]
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")


class AttemptList(View):
    """The attempts of one experiment, oldest first."""

    items: list[AttemptView]
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")


class CurveView(View):
    """The history of one metric: three columns of one length."""

    name: str = Field(description="as in MLflow: val/top1, train/loss, lr, …")
    steps: list[int] = Field(description="optimizer steps, rising")
    values: list[float | None] = Field(description="null where a value was not finite")
    times: list[int] = Field(description="when it was measured, Unix time in milliseconds")


class CurveList(View):
    """The history of an experiment's metrics, by name."""

    items: list[CurveView]


class ErrorItem(View):
    """One thing that is wrong with the request."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body, or the name of the parameter")
    detail: str


class Problem(View):
    """RFC 9457: what went wrong, in a form that programs and people can read."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[ErrorItem] = []
    legal: list[str] | None = Field(None, description="with 409: the actions that this state allows")


class ComponentHealth(View):
    """One part the service stands on."""

    ok: bool
    detail: str = ""


class Readiness(View):
    """Whether requests can be served, and what is degraded."""

    ready: bool
    degraded: list[str] = Field(description="parts that are away; experiments can still be submitted")
    components: dict[str, ComponentHealth]

    def without_details(self) -> "Readiness":
        """The same for those without a token: details hold addresses and the words of errors."""
        return self.model_copy(
            update={"components": {name: ComponentHealth(ok=c.ok) for name, c in self.components.items()}}
        )
