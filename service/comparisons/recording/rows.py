"""What is kept of the MLflow runs of studies, and which studies MLflow has not heard of as they are now."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, cast, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.database.engine import Database
from service.database.models.experiments import Experiment
from service.database.models.studies import Study, StudyRun, Trial
from service.domain.studies import STUDY_TERMINAL, StudyKind

_STATES = (
    select(
        Study.id,
        Study.version,
        Study.state,
        func.count(Trial.number),
        func.count(Experiment.id),
        func.coalesce(func.sum(Experiment.version), 0),
        func.count(Trial.observed_at),
        func.count(Experiment.mlflow_run_id),
        func.coalesce(func.sum(cast(Experiment.tracking_closed, Integer)), 0),
        func.coalesce(StudyRun.told, ""),
    )
    .outerjoin(StudyRun, StudyRun.study_id == Study.id)
    .join(Trial, Trial.study_id == Study.id)  # nothing is told of one that has not begun
    .outerjoin(Experiment, Experiment.id == Trial.experiment_id)
    .where(Study.kind == StudyKind.COMPARISON)
    .where(or_(StudyRun.study_id.is_(None), StudyRun.finished.is_(False), StudyRun.version != Study.version))
    .group_by(Study.id, Study.version, Study.state, Study.created_at, StudyRun.told)
    .order_by(Study.created_at, Study.id)
)


@dataclass(frozen=True)
class Untold:
    """A study of which MLflow has not heard as its rows are now."""

    study_id: str
    has_ended: bool
    state: str
    """What changes whenever a row of it does that MLflow hears of."""
    version: int
    is_last: bool
    """Whether all its runs have ended in MLflow too, so that nothing more comes of this version of it."""


class StudyRunRows:
    """The rows of `study_runs`. Two processes may write them at once: what one has made, the other takes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def untold(self) -> list[Untold]:
        """The comparisons to tell of, in the order in which they were submitted."""
        with self.database.reading() as session:
            found = [tuple(row) for row in session.execute(_STATES)]
        return [
            Untold(study_id, state in STUDY_TERMINAL, signature, version, state in STUDY_TERMINAL and closed == there)
            for study_id, version, state, trials, there, versions, read, runs, closed, told in found
            if (signature := f"{version} {state} {trials} {there} {versions} {read} {runs} {closed}") != told
        ]

    def deleted(self) -> list[str]:
        """The studies that are gone, and of which MLflow has runs."""
        gone = select(StudyRun.study_id).where(StudyRun.study_id.not_in(select(Study.id)))
        with self.database.reading() as session:
            return list(session.scalars(gone.order_by(StudyRun.study_id)))

    def get(self, study_id: str) -> StudyRun | None:
        """What is known of its runs."""
        with self.database.reading() as session:
            return session.get(StudyRun, study_id)

    def ensure(self, study_id: str) -> StudyRun:
        """Its row; a new one has the word that its runs are made with, before there is any of them."""
        if (row := self.get(study_id)) is not None:
            return row
        try:
            with self.database.writing() as session:
                session.add(StudyRun(study_id=study_id, creation=secrets.token_hex(16)))
        except IntegrityError:  # another process was faster
            pass
        row = self.get(study_id)
        assert row is not None
        return row

    def note_run(self, study_id: str, *, instead_of: str | None, run_id: str, experiment_id: str) -> bool:
        """Note the parent run; False where another process has noted one meanwhile."""
        known = StudyRun.run_id.is_(None) if instead_of is None else StudyRun.run_id == instead_of
        fields = {"run_id": run_id, "experiment_id": experiment_id, "linked": [], "summaries": {}}
        return self._change(study_id, fields, known) == 1

    def note_linked(self, study_id: str, runs: list[str]) -> None:
        """Note which runs name the parent run."""
        self._change(study_id, {"linked": runs})

    def note_summaries(self, study_id: str, summaries: Mapping[str, Any]) -> None:
        """Note the summary run of each variant."""
        self._change(study_id, {"summaries": dict(summaries)})

    def note_told(self, of: Untold) -> None:
        """Note that MLflow has heard of this state."""
        self._change(of.study_id, {"told": of.state, "version": of.version, "finished": of.is_last})

    def forget(self, study_id: str) -> None:
        """Nothing is told of its runs any more."""
        with self.database.writing() as session:
            session.execute(delete(StudyRun).where(StudyRun.study_id == study_id))

    def _change(self, study_id: str, fields: Mapping[str, Any], *conditions: Any) -> int:
        with self.database.writing() as session:
            return _changed(session, study_id, fields, *conditions)


def _changed(session: Session, study_id: str, fields: Mapping[str, Any], *conditions: Any) -> int:
    change = update(StudyRun).where(StudyRun.study_id == study_id, *conditions).values(**fields)
    return int(session.execute(change).rowcount)  # type: ignore[attr-defined]
