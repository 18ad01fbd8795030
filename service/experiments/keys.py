"""Idempotency keys: what an owner has submitted under a key in the last day, an experiment or a study."""

from datetime import timedelta
from typing import TypeVar

from sqlalchemy import delete
from sqlalchemy.orm import Session

from service.database.models.experiments import Experiment, IdempotencyKey
from service.database.models.studies import Study
from service.domain.values import utc_now
from service.errors import ExperimentDeleted, IdempotencyConflict, StudyDeleted

KEY_LIFE = timedelta(hours=24)  # an Idempotency-Key means nothing after that
SubmittedT = TypeVar("SubmittedT", Experiment, Study)


def forget_old_keys(session: Session) -> None:
    """Remove the keys that mean nothing any more."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < utc_now() - KEY_LIFE))


def submitted_with(
    session: Session, key: str, table: type[SubmittedT], *, owner: str, body_hash: str
) -> SubmittedT | None:
    """What this owner has submitted under the key in the last day; None where that is nothing.

    Raises IdempotencyConflict where the key came with another body, and ExperimentDeleted or StudyDeleted where what
    it stands for is gone.
    """
    seen = session.get(IdempotencyKey, (owner, key))
    if seen is None or seen.created_at < utc_now() - KEY_LIFE:
        return None
    if seen.body_hash != body_hash:
        raise IdempotencyConflict
    if (row := session.get(table, seen.experiment_id)) is None:
        raise StudyDeleted if table is Study else ExperimentDeleted
    return row


def key_of(row: Experiment | Study, key: str, body_hash: str) -> IdempotencyKey:
    """The key, as it is kept with what was submitted under it."""
    return IdempotencyKey(
        owner=row.owner, key=key, body_hash=body_hash, experiment_id=row.id, created_at=row.created_at
    )
