"""The same question asked again with fresh seeds: a verdict of its own, and both are told."""

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from itertools import count

from cbam_core.spec import ExperimentSpec
from service.comparisons.planner import comparison_of
from service.comparisons.result import result_of
from service.database.models.studies import Study
from service.domain.roles import Caller
from service.domain.studies import StudyKind, seed_of
from service.errors import InvalidFields, StudyNotFound
from service.experiments import actions as experiments
from service.schemas.comparison_results import ReplicationView, ResultView
from service.schemas.comparisons import MOST_SEEDS, ReplicationRequest
from service.settings import Settings
from service.studies.new import NewStudy
from service.studies.store import StudyStore

LONGEST_NAME = 128
MOST_TOLD = 10  # replications in one result


def replicate(
    store: StudyStore,
    settings: Settings,
    study: Study,
    request: ReplicationRequest,
    *,
    caller: Caller,
    key: str | None,
) -> tuple[Study, bool]:
    """Submit the same comparison with seeds that it and its other replications have not had. The copy is the caller's.

    Returns it and whether it is new: a key may be known. Raises InvalidFields where the specs of its experiments would
    be refused today, IdempotencyConflict, StudyDeleted, DiskQuotaExceeded.
    """
    body = {"replicates": study.id, **request.model_dump(mode="json")}
    body_hash = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    if (known := store.submitted(key, owner=caller.name, body_hash=body_hash)) is not None:
        return known, False
    if study.chosen is not None:
        raise InvalidFields([("", "its runs were there before it: to train fresh ones, give `base` and `variants`")])
    comparison = comparison_of(study)
    specs = {name: ExperimentSpec.model_validate(fields) for name, fields in study.specs.items()}
    for name, spec in specs.items():
        try:
            experiments.check(settings, spec)
        except InvalidFields as error:
            raise InvalidFields([("", f"{name}{pointer}: {detail}") for pointer, detail in error.items]) from error
    earlier = store.replications(study.id)
    seed = fresh_seed([study.seed, *(other.seed for other in earlier)])
    name = request.name or _name(study.name, {other.name for other in earlier})
    changes = {"name": name, "seed": seed} | ({} if request.seeds is None else {"seeds": request.seeds})
    changed = comparison.model_copy(update=changes)
    new = NewStudy(
        kind=StudyKind.COMPARISON,
        name=name,
        project=study.project,
        description=study.description,
        spec=changed.model_dump(mode="json"),
        specs=specs,
        seed=seed,
        seeds=changed.first_seeds,
        replicates=study.id,
    )
    return store.submit(new, owner=caller.name, key=key, body_hash=body_hash, quota_disk=settings.quota_disk)


def fresh_seed(taken: Sequence[int]) -> int:
    """Draw what the seeds of a replication are drawn from: none of its blocks has a seed of these studies' blocks."""
    used = {seed_of(seed, block) for seed in taken for block in range(MOST_SEEDS)}
    while True:
        seed = secrets.randbelow(2**31)
        if used.isdisjoint(seed_of(seed, block) for block in range(MOST_SEEDS)):
            return seed


def with_replications(store: StudyStore, study: Study) -> ResultView:
    """The result of a comparison, and beside it what the one that it repeats and those that repeat it have shown."""
    result = result_of(study, store.trials(study.id))
    return result.model_copy(update={"replications": list(_told(store, study))})


def _told(store: StudyStore, study: Study) -> Iterator[ReplicationView]:
    if study.replicates is not None:
        try:
            yield _view(store, store.get(study.replicates), repeats=False)
        except StudyNotFound:
            yield ReplicationView(id=study.replicates, name="", relation="of", state=None, seeds=0, summary=[])
    for other in store.replications(study.id)[:MOST_TOLD]:
        yield _view(store, other, repeats=True)


def _view(store: StudyStore, other: Study, *, repeats: bool) -> ReplicationView:
    result = result_of(other, store.trials(other.id))
    return ReplicationView(
        id=other.id,
        name=other.name,
        relation="by" if repeats else "of",
        state=result.state,
        seeds=result.seeds.finished,
        summary=result.summary,
    )


def _name(name: str, taken: set[str]) -> str:
    """`NAME-replication`, with a number where that is taken."""
    for number in count(1):
        ending = "-replication" + f"-{number}" * (number > 1)
        if (made := name[: LONGEST_NAME - len(ending)].rstrip() + ending) not in taken:
            return made
    raise AssertionError
