"""The one place where the state of a study changes: the move is checked and written down in the same transaction."""

from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from service.database import outbox
from service.database.models.studies import Decision, Study
from service.domain.studies import STUDY_TERMINAL, StudyMove, StudyState, is_legal_study_move
from service.domain.values import utc_now
from service.errors import StaleMove


def change_study_state(session: Session, row: Study, move: StudyMove, *, by: str) -> None:
    """The one door for a change of state. Raises StaleMove where the row is no longer what was read."""
    source = StudyState(row.state)
    if not is_legal_study_move(source, move.to):
        raise ValueError(f"{source} to {move.to} is not a legal move of a study")
    now = utc_now()
    moved = session.execute(
        update(Study)
        .where(Study.id == row.id, Study.state == row.state, Study.version == row.version)
        .values(
            state=move.to,
            reason=move.reason,
            message=move.message,
            ended_at=now if move.to in STUDY_TERMINAL else None,
            version=Study.version + 1,
        )
        .execution_options(synchronize_session=False)
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        raise StaleMove
    payload = {"reason": move.reason, "message": move.message}
    note_decision(session, row, "move", payload, by=by, states=(source, move.to))
    session.refresh(row)
    if move.to in STUDY_TERMINAL:
        outbox.tell_of_study(session, row, at=now)


def note_decision(
    session: Session,
    row: Study,
    kind: str,
    payload: dict[str, Any],
    *,
    by: str,
    states: tuple[StudyState | None, StudyState | None] = (None, None),
) -> None:
    """Write down what was decided, beside the change itself."""
    source, to = states
    at = utc_now()
    session.add(Decision(study_id=row.id, kind=kind, from_state=source, to_state=to, payload=payload, by=by, at=at))
    session.flush()
