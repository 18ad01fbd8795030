"""What became of an experiment: its events, attempts and metrics."""

from datetime import datetime

from pydantic import Field

from service.domain.states import Reason, State
from service.schemas.base import View


class EventView(View):
    """One change of state; `from_state` is null for the first, and for a pruning, which leaves the state as it is."""

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
