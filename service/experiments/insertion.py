"""Writes a new experiment down, in a transaction that is open: its row, its first event, what it is found by."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from cbam_core.spec import ExperimentSpec
from service.database import outbox
from service.database.listing import labels_of
from service.database.models.experiments import Event, Experiment
from service.domain.states import State
from service.domain.values import new_id, utc_now


def insert_experiment(
    session: Session,
    spec: ExperimentSpec,
    owner: str,
    *,
    cloned_from: str | None = None,
    study_id: str | None = None,
    probed_against: ExperimentSpec | None = None,
    queued_at: datetime | None = None,
    message: str = "",
) -> Experiment:
    """A new experiment, QUEUED, and its first event with `message`. Without `queued_at` it is queued now.

    With `probed_against` it trains nothing: it is the probe of what its spec costs against that one.
    """
    now = utc_now()
    queued_at = queued_at or now
    row = Experiment(
        id=new_id(),
        name=spec.name,
        project=spec.project,
        description=spec.description,
        tags=spec.tags,
        owner=owner,
        priority=spec.priority,
        spec=spec.model_dump(mode="json"),
        cloned_from=cloned_from,
        study_id=study_id,
        probed_against=None if probed_against is None else probed_against.model_dump(mode="json"),
        state=State.QUEUED,
        progress={},
        summary={},
        created_at=queued_at,
        queued_at=queued_at,
        deadline_at=deadline_of(spec.deadline_minutes, queued_at),
        disk_measured_at=now,  # it has no files
    )
    session.add(row)
    session.flush()
    event = Event(experiment_id=row.id, attempt=0, to_state=State.QUEUED, message=message, by=owner, at=now)
    session.add(event)
    session.flush()
    outbox.tell(session, row, event)
    session.add_all(labels_of(row))
    return row


def deadline_of(minutes: float | None, start: datetime) -> datetime | None:
    """When an experiment that was queued at `start` is out of time."""
    return None if minutes is None else start + timedelta(minutes=minutes)
