"""What is asked of the experiments of a study, in a transaction that has locked the study."""

from collections.abc import Sequence

from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from service.database.models.experiments import Experiment
from service.database.models.studies import Trial
from service.domain.pruning import PruneScope
from service.domain.states import ACTIONS, TERMINAL, Reason, State
from service.domain.studies import PROBE_BLOCK, TrialOutcome, name_of
from service.errors import GoesOn
from service.experiments.store import forget_in, requeue_in

DELETED_AT_ONCE = 50  # in one transaction
MOST_NAMED = 8  # in a message
HAVE_ENDED_FOR_GOOD = (Reason.LOSS_NOT_FINITE, TrialOutcome.NO_METRIC, TrialOutcome.SPEC_INVALID)
"""What a trial of a sweep would end with again."""


def delete_some(session: Session, study_id: str, *, by: str) -> bool:
    """Forget some of its experiments; False where there are none. Raises GoesOn, for any that has not ended."""
    columns = (Experiment.id, Experiment.state, Experiment.name, Experiment.owner, Experiment.disk_bytes)
    query = select(*columns).where(Experiment.study_id == study_id)
    some = query.order_by(Experiment.created_at, Experiment.id).limit(DELETED_AT_ONCE)
    chosen = session.execute(some.with_for_update()).all()
    going_on = session.execute(query.where(Experiment.state.not_in(TERMINAL)).limit(1)).all()
    for row in (*chosen, *going_on):
        if row.state not in TERMINAL:
            raise GoesOn(row.id, "delete", row.state, ACTIONS[State(row.state)])
    if chosen:
        forget_in(session, chosen, by=by)
    return bool(chosen)


def requeue_failed(session: Session, study_id: str, *, by: str) -> tuple[list[int], list[str]]:
    """Queue what failed or was cancelled: the numbers of those trials, and in words those that were pruned."""
    query = (
        select(Trial.number, Trial.variant, Trial.block, Experiment)
        .join(Experiment, Experiment.id == Trial.experiment_id)
        .where(Trial.study_id == study_id, Experiment.state.in_((State.FAILED, State.CANCELLED)))
        .where(or_(Experiment.reason.is_(None), Experiment.reason != Reason.LOSS_NOT_FINITE))
        .order_by(Trial.number)
    )
    queued, pruned = list[int](), list[str]()
    for number, variant, block, experiment in session.execute(query.with_for_update(of=Experiment)).all():
        if experiment.pruned is None:
            requeue_in(session, experiment, by=by)
            queued.append(number)
        else:
            pruned.append(f"{name_of(variant, block)} ({experiment.id})")
    return queued, pruned


def mark_for_retry(session: Session, study_id: str) -> tuple[list[int], list[str]]:
    """The same of a sweep, which queues them as it has room; what was deleted without a value is trained anew."""
    query = (
        select(Trial.number, Trial.experiment_id, Experiment.id, Experiment.pruned)
        .outerjoin(Experiment, Experiment.id == Trial.experiment_id)
        .where(Trial.study_id == study_id, Trial.value.is_(None))
        .where(Trial.outcome.is_(None) | Trial.outcome.not_in(HAVE_ENDED_FOR_GOOD))
        .where(Experiment.id.is_(None) | Experiment.state.in_((State.FAILED, State.CANCELLED)))
        .order_by(Trial.number)
    )
    marked, pruned = list[int](), list[str]()
    for number, experiment_id, there, was_pruned in session.execute(query).all():
        if there is None or was_pruned is None:
            marked.append(number)
        else:
            pruned.append(f"trial {number} ({experiment_id})")
    again = {"outcome": TrialOutcome.RETRY, "place": None, "why": None}
    session.execute(update(Trial).where(Trial.study_id == study_id, Trial.number.in_(marked)).values(**again))
    return marked, pruned


def read_again(session: Session, study_id: str) -> list[int]:
    """Have the runs that succeeded and told no number read once more: the numbers of those that have files still."""
    has_files = or_(Experiment.pruned.is_(None), Experiment.pruned != PruneScope.ALL)
    mine = select(Trial.experiment_id).where(Trial.study_id == study_id)
    done = select(Experiment.id).where(Experiment.id.in_(mine), Experiment.state == State.SUCCEEDED, has_files)
    is_training = Trial.block != PROBE_BLOCK  # what a probe says is in its row, and stays what it is
    unread = (Trial.study_id == study_id, is_training, Trial.correct.is_(None), Trial.experiment_id.in_(done))
    numbers = session.scalars(select(Trial.number).where(*unread).order_by(Trial.number)).all()
    if numbers:
        session.execute(update(Trial).where(*unread).values(observed_at=None))
    return list(numbers)


def why_none(pruned: Sequence[str]) -> str:
    """Why nothing can be retried, in words."""
    if not pruned:
        return "nothing failed or was cancelled, and all that its runs reached was read"
    named = "; ".join(pruned[:MOST_NAMED]) + "; …" * (len(pruned) > MOST_NAMED)
    return f"the checkpoints of all that failed or was cancelled were pruned: {named}"


def have_results(session: Session, study_id: str) -> bool:
    """Whether what a run reached was to be seen: here, or of its experiment, which is told of before it is read."""
    ended = or_(
        Experiment.state == State.SUCCEEDED,
        and_(Experiment.state == State.FAILED, Experiment.reason == Reason.LOSS_NOT_FINITE),
    )
    query = (
        select(Trial.number)
        .outerjoin(Experiment, Experiment.id == Trial.experiment_id)
        .where(Trial.study_id == study_id, Trial.block != PROBE_BLOCK, or_(Trial.observed_at.is_not(None), ended))
    )
    return session.scalar(query.limit(1)) is not None
