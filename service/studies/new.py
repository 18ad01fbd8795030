"""A study as it is asked for, before it has a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cbam_core.spec import ExperimentSpec
from service.database.models.studies import Study, Trial
from service.domain.studies import StudyKind, StudyState
from service.domain.values import new_id, utc_now


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """An experiment that was there before the study that compares it."""

    experiment_id: str
    variant: str
    block: int
    seed: int

    def row(self, study_id: str, number: int) -> Trial:
        """The trial that it is in that study."""
        return Trial(
            study_id=study_id,
            number=number,
            experiment_id=self.experiment_id,
            variant=self.variant,
            block=self.block,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class NewStudy:
    """A study as it is asked for; `specs` are those of its experiments by variant, but for names and seeds.

    Of a sweep `specs` has the base alone, and `limits` how far it goes.
    """

    kind: StudyKind
    name: str
    project: str
    description: str
    spec: dict[str, Any]
    specs: Mapping[str, ExperimentSpec]
    seed: int
    seeds: int
    replicates: str | None = None
    chosen: dict[str, Any] | None = None
    """Of a study whose runs were there before: what else is to be told of how they were chosen."""
    runs: Sequence[PlannedRun] = ()
    limits: dict[str, Any] | None = None

    def row(self, owner: str) -> Study:
        """The row that it begins as."""
        return Study(
            id=new_id(),
            kind=self.kind,
            name=self.name,
            project=self.project,
            description=self.description,
            owner=owner,
            spec=self.spec,
            specs={name: spec.model_dump(mode="json") for name, spec in self.specs.items()},
            seed=self.seed,
            seeds=self.seeds,
            replicates=self.replicates,
            chosen=self.chosen,
            limits=self.limits,
            state=StudyState.ACTIVE,
            created_at=utc_now(),
        )
