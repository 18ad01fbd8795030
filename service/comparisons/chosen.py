"""Comparisons of experiments that were there before the question: held to the same rules, and marked as that.

Whoever chooses among finished runs can choose an answer. So the runs of all variants have the same seeds, what else was
trained with the same settings and left out is listed, and the result says that it was chosen afterwards.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cbam_core.pointers import MOST_ERROR_ITEMS, pointer_part
from cbam_core.spec import ExperimentSpec
from service.comparisons.submission import alike, held_equal
from service.comparisons.unequal import NOT_HELD, differences, in_full
from service.database.models.experiments import Experiment
from service.domain.states import Reason, State, has_diverged
from service.domain.studies import StudyKind
from service.errors import InvalidField, InvalidFields
from service.experiments.store import ExperimentStore
from service.schemas.comparisons import ComparisonSpec
from service.studies.new import NewStudy, PlannedRun

LOOKED_AT = 1000  # experiments of the project, the newest: among them those that were not chosen are looked for
Runs = Mapping[str, Sequence[Experiment]]


def chosen_study(store: ExperimentStore, comparison: ComparisonSpec) -> NewStudy:
    """The study that compares the experiments of `from`. Raises InvalidFields with pointers into the comparison."""
    runs = _named(_found(store, comparison), comparison)
    settings = {name: _settings(of[0]) for name, of in runs.items()}
    problems = [*_unlike(runs, settings), *_unpaired(runs)] or [*_not_held(settings)]
    if problems:
        raise InvalidFields(problems[:MOST_ERROR_ITEMS])
    specs = {name: ExperimentSpec.model_validate(fields) for name, fields in settings.items()}
    if twice := alike(specs, place="/from"):
        raise InvalidFields(twice)
    seeds = sorted(_seed(run) for run in next(iter(runs.values())))
    if "seeds" in comparison.model_fields_set and comparison.seeds != len(seeds):
        raise InvalidField("/seeds", f"the experiments of `from` have {len(seeds)} seeds: leave it out")
    first = next(iter(runs.values()))[0]
    changes = {
        "from_": {name: [run.id for run in of] for name, of in runs.items()},
        "seeds": len(seeds),
        "probe": False,
    }
    return NewStudy(
        kind=StudyKind.COMPARISON,
        name=comparison.name,
        project=comparison.project or first.project,
        description=comparison.description,
        spec=comparison.model_copy(update=changes).model_dump(mode="json"),
        specs=specs,
        seed=0,
        seeds=len(seeds),
        chosen={"unused": [run.id for run in _unused(store, runs, settings)]},
        runs=[
            PlannedRun(experiment_id=run.id, variant=name, block=seeds.index(_seed(run)), seed=_seed(run))
            for name, of in runs.items()
            for run in sorted(of, key=_seed)
        ],
    )


def _found(store: ExperimentStore, comparison: ComparisonSpec) -> dict[str, list[tuple[str, Experiment]]]:
    """The experiments by variant with the places of their ids; under an empty name where they come in one list."""
    wanted = comparison.from_
    assert wanted is not None
    named = wanted if isinstance(wanted, dict) else {"": wanted}
    places = {
        name: [(f"/from{f'/{pointer_part(name)}' * bool(name)}/{number}", one) for number, one in enumerate(ids)]
        for name, ids in named.items()
    }
    rows = {row.id: row for row in store.several({one for of in places.values() for _, one in of})}
    problems, seen = list[tuple[str, str]](), set[str]()
    for place, one in (item for of in places.values() for item in of):
        if (row := rows.get(one)) is None:
            problems.append((place, f"there is no experiment {one!r}"))
        elif one in seen:
            problems.append((place, f"{one} is there twice"))
        elif not _has_number(row):
            problems.append((place, f"{row.name} ({one}) is {row.state}: only what has succeeded, or diverged, counts"))
        elif row.spec["train"].get("seeds") is not None:
            problems.append((place, f"{row.name} ({one}) has train.seeds apart: runs are paired by train.seed"))
        seen.add(one)
    if problems:
        raise InvalidFields(problems[:MOST_ERROR_ITEMS])
    return {name: [(place, rows[one]) for place, one in of] for name, of in places.items()}


def _has_number(row: Experiment) -> bool:
    state = State(row.state)
    return state is State.SUCCEEDED or has_diverged(state, None if row.reason is None else Reason(row.reason))


def _named(found: Mapping[str, Sequence[tuple[str, Experiment]]], comparison: ComparisonSpec) -> Runs:
    """The runs by variant: as named, or by their attention where that tells them apart."""
    if "" not in found:
        return {name: [run for _, run in of] for name, of in found.items()}
    groups: dict[str, list[list[Experiment]]] = {}
    for _, run in found[""]:
        of_type = groups.setdefault(str(_settings(run)["model"]["attention"]["type"]), [])
        group = next((one for one in of_type if _alike(_settings(one[0]), _settings(run))), None)
        if group is None:
            of_type.append([run])
        else:
            group.append(run)
    several = [name for name, of_type in groups.items() if len(of_type) > 1]
    if several or len(groups) < 2:
        why = f"there are several settings with {several[0]}" if several else "all have one attention"
        raise InvalidField("/from", f"{why}: say which variant is which, as in `from: {{plain: [ids], cbam: [ids]}}`")
    if comparison.control is not None and comparison.control not in groups:
        names = ", ".join(groups)
        raise InvalidField("/control", f"the variants are called after their attention: {names}")
    return {name: of_type[0] for name, of_type in groups.items()}


def _settings(run: Experiment) -> dict[str, Any]:
    """The whole spec of a run, with the defaults of what it does not say, and without its seed."""
    fields = in_full(run.spec)
    return {**fields, "train": {**fields["train"], "seed": 0}}


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[name] == other[name] for name in one if name not in NOT_HELD)


def _seed(run: Experiment) -> int:
    seed: int = run.spec["train"].get("seed", 0)
    return seed


def _unlike(runs: Runs, settings: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Runs of one variant that differ in more than their seed."""
    for name, of in runs.items():
        for number, run in enumerate(of):
            for path, old, new in differences(settings[name], _settings(run)):
                words = f"`{path}` is {new} in {run.name} ({run.id}), and {old} in {of[0].id}: one variant, one setting"
                yield f"/from/{pointer_part(name)}/{number}", words


def _unpaired(runs: Runs) -> Iterator[tuple[str, str]]:
    """Seeds that one variant has and another lacks, or has twice."""
    wanted = {_seed(run) for of in runs.values() for run in of}
    for name, of in runs.items():
        seeds = [_seed(run) for run in of]
        place = f"/from/{pointer_part(name)}"
        if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            yield place, f"several runs have the seed {twice[0]}: give one for each seed"
        if lacking := sorted(wanted - set(seeds)):
            yield place, f"no run has the seed {lacking[0]}, which another variant has: the seeds must be the same"


def _not_held(settings: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What the variants have unequal and may not."""
    (_, first), *others = settings.items()
    for name, fields in others:
        for path in held_equal(first, fields):
            if path.partition(".")[0] not in NOT_HELD:
                yield f"/from/{pointer_part(name)}", f"not comparable: `{path}` differs from that of the first variant"


def _unused(store: ExperimentStore, runs: Runs, settings: Mapping[str, dict[str, Any]]) -> list[Experiment]:
    """Experiments of the same projects and settings that ended with a number and were not chosen."""
    chosen = {run.id for of in runs.values() for run in of}
    projects = {run.project for of in runs.values() for run in of}
    others = [row for row in store.newest_of(projects, limit=LOOKED_AT) if row.id not in chosen and _has_number(row)]
    return [row for row in others if any(_alike(_settings(row), fields) for fields in settings.values())]
