"""The one place where a state changes: the move is checked and its event written in the same transaction."""

from sqlalchemy import update
from sqlalchemy.orm import Session

from service.database import outbox
from service.database.models.experiments import Event, Experiment
from service.domain.states import Move, State, is_legal
from service.domain.values import utc_now
from service.errors import StaleMove


def change_state(session: Session, row: Experiment, move: Move, *, by: str) -> None:
    """The one door for a change of state. Raises StaleMove where the row is no longer what was read."""
    source = State(row.state)
    if not is_legal(source, move.to):
        raise ValueError(f"{source} to {move.to} is not a legal move")
    moved = session.execute(
        update(Experiment)
        .where(Experiment.id == row.id, Experiment.state == row.state, Experiment.version == row.version)
        .values(state=move.to, reason=move.reason, message=move.message, version=Experiment.version + 1)
        .execution_options(synchronize_session=False)
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        raise StaleMove
    event = Event(
        experiment_id=row.id,
        attempt=row.attempt,
        from_state=source,
        to_state=move.to,
        reason=move.reason,
        message=move.message,
        by=by,
        at=utc_now(),
    )
    session.add(event)
    session.flush()
    session.refresh(row)
    outbox.tell(session, row, event)
