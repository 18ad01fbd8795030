"""A comparison that the test submits, and a dispatcher that ticks until it is where the test wants it."""

import pytest

from service.comparisons.submission import base_spec, variant_specs
from service.database.models.studies import Study
from service.dispatcher.dispatcher import Dispatcher
from service.domain.studies import StudyKind, StudyState
from service.schemas.comparisons import ComparisonSpec
from service.studies.new import NewStudy
from service.studies.store import StudyStore
from tests.support.dispatching import tick
from tests.support.specs import spec_dict


def comparison(**changes: object) -> ComparisonSpec:
    fields = {
        "name": "does cbam help",
        "base": spec_dict(),
        "variants": {"plain": {"model.attention": "none"}, "cbam": {}},
        "seeds": 3,
        "probe": False,
    }
    return ComparisonSpec.model_validate(fields | changes)


def submitted(studies: StudyStore, spec: ComparisonSpec | None = None, *, key: str | None = None) -> Study:
    spec = spec or comparison()
    new = NewStudy(
        kind=StudyKind.COMPARISON,
        name=spec.name,
        project="tests",
        description="",
        spec=spec.model_dump(mode="json"),
        specs=variant_specs(spec, base_spec(spec)),
        seed=7,
        seeds=spec.first_seeds,
    )
    study, _ = studies.submit(new, owner="local", key=key, body_hash=spec.model_dump_json(), quota_disk=None)
    return study


def until(dispatcher: Dispatcher, studies: StudyStore, study_id: str, state: StudyState, most: int = 120) -> None:
    for _ in range(most):
        if studies.get(study_id).state == state:
            return
        tick(dispatcher)
        if dispatcher.studies.under_way is not None:
            dispatcher.studies.under_way.exception()  # waits
    pytest.fail(f"still {studies.get(study_id).state}: {studies.trials(study_id)}")
