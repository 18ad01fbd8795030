"""What makes runs *not comparable*: a field that was not varied and is not the same in all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cbam_core.spec import ExperimentSpec
from service.comparisons.runs import Run, Runs
from service.database.models.studies import Study
from service.domain.states import TERMINAL, State
from service.domain.studies import STUDY_TERMINAL
from service.schemas.comparison_results import UnequalField, UnequalValueView

MOST_FIELDS = 20
MOST_VALUES = 5
MOST_NAMED = 5  # runs that are named for each value
LONGEST_VALUE = 80
NOT_HELD = frozenset({"name", "description", "tags", "priority", "project"})
"""Fields of a run's spec that change nothing of what it reaches."""
FACTS = ("device", "world_size", "torch", "code", "data")
"""What the worker says of a run at its end, and must be the same for all."""
SAID_BY_SOME = ("split", "weights_sha256")
"""What must be the same for all that say it: older runs do not, nor does of weights who starts from none."""


@dataclass(frozen=True)
class Value:
    """What a field is in one run."""

    run: str
    words: str


def unequal_fields(study: Study, runs: Runs) -> list[UnequalField]:
    """Everything that differs between the runs and was not varied, the outcomes first; no more than 20 fields."""
    known = [run for run in runs.all if run.experiment is not None]
    found = [
        _outcomes(study, runs),
        _differing(f"{_part(study)} images", _images(runs.all)),
        *_specs(study, known),
        _differing("semantics", [Value(run.label, str(run.experiment.semantics)) for run in known if run.experiment]),
        *(_differing(name, _facts(known, name)) for name in (*FACTS, *SAID_BY_SOME)),
    ]
    return [field for field in found if field is not None][:MOST_FIELDS]


def unknown_conditions(runs: Runs) -> list[Run]:
    """Runs that are in the numbers and do not say what they were trained on and by."""
    counted = set(runs.blocks)
    return [
        run for run in runs.all if run.trial.block in counted and any(run.facts.get(name) is None for name in FACTS)
    ]


def _outcomes(study: Study, runs: Runs) -> UnequalField | None:
    """Runs that ended without a number: to leave them out would be to choose."""
    values = [Value(run.label, words) for run in runs.all if (words := _ended_without(run, runs, study)) is not None]
    if not values:
        return None
    rest = [Value(run.label, "a number") for run in runs.all if run.seen.counts]
    return _field("outcome", [*rest, *values], f"ended without a number: {_named(values)}")


def _ended_without(run: Run, runs: Runs, study: Study) -> str | None:
    """How a run ended that has no number and will have none; None where it has one, or may still get one."""
    if run.seen.counts or run.seen.is_open:
        return None
    if run.trial.correct is not None and run.trial.images != runs.images:
        return None  # it has one, of other images, which is told as that
    if run.seen.state is State.SUCCEEDED:
        return "succeeded, but left nothing to read"
    if run.diverged:
        return "diverged, and what chance reaches is unknown" if study.state in STUDY_TERMINAL else None
    if run.seen.state in TERMINAL:
        return str(run.seen.state).lower() + (f" ({run.seen.reason})" if run.seen.reason else "")
    return "deleted"


def _images(runs: Sequence[Run]) -> list[Value]:
    """Which images each run was measured on. Where only some runs tell which, the numbers of images are compared."""
    measured = [run for run in runs if run.trial.images is not None]
    digests = {run.trial.number: run.trial.observed["digest"] for run in measured if run.trial.observed}
    numbers = {run.trial.images for run in measured}
    if len(numbers) > 1 or not digests:
        return [Value(run.label, f"{run.trial.images} images") for run in measured]
    told = [run for run in measured if run.trial.number in digests]
    return [Value(run.label, f"{run.trial.images} images with the digest {digests[run.trial.number]}") for run in told]


def _facts(runs: Sequence[Run], name: str) -> list[Value]:
    """What the worker has said; a run that does not say it is unknown, not unequal."""
    return [Value(run.label, str(run.facts[name])) for run in runs if run.facts.get(name) is not None]


def _specs(study: Study, runs: Sequence[Run]) -> list[UnequalField]:
    """Fields of the specs that are not as the comparison asked."""
    asked: dict[str, dict[str, Any]] = {}
    wrong: dict[str, list[tuple[str, Any, Any]]] = {}
    for run in runs:
        assert run.experiment is not None
        wanted = {**(fields := study.specs[run.trial.variant]), "train": {**fields["train"], "seed": run.trial.seed}}
        given = run.experiment.spec
        if all(wanted.get(name) == given.get(name) for name in wanted.keys() | given.keys() if name not in NOT_HELD):
            continue
        if run.trial.variant not in asked:
            asked[run.trial.variant] = in_full(fields)
        wanted = asked[run.trial.variant]
        wanted = {**wanted, "train": {**wanted["train"], "seed": run.trial.seed}}
        for path, old, new in differences(wanted, in_full(given)):
            wrong.setdefault(path, []).append((run.label, old, new))
    return [_misfit(path, cases, len(runs)) for path, cases in wrong.items()]


def in_full(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with the fields that it lacks, being older, as they are by default."""
    return ExperimentSpec.model_validate(fields, strict=False).model_dump(mode="json")


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The fields in which two specs differ: path, old, new; without those that are not held equal."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield path, old, new
        return
    for name in sorted(old.keys() | new.keys()):
        if path or name not in NOT_HELD:
            yield from differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)


def _misfit(path: str, cases: list[tuple[str, Any, Any]], runs: int) -> UnequalField:
    values = [Value(label, _text(new)) for label, _, new in cases]
    first, old, new = cases[0]
    more = f", and in {len(cases) - 1} more" if len(cases) > 1 else ""
    words = f"{path} was to be {_text(old)}, and is {_text(new)} in {first}{more}"
    field = _field(path, values, words)
    as_asked = UnequalValueView(value="as asked for", runs=runs - len(cases), of=[])
    return field.model_copy(update={"values": [as_asked, *field.values][:MOST_VALUES]})


def _differing(name: str, values: Sequence[Value]) -> UnequalField | None:
    if len({value.words for value in values}) < 2:
        return None
    return _field(name, values, f"{name} is not the same: {_named(values)}")


def _field(name: str, values: Sequence[Value], words: str) -> UnequalField:
    return UnequalField(
        field=name,
        words=words,
        values=[
            UnequalValueView(value=_short(text), runs=len(labels), of=labels[:MOST_NAMED])
            for text, labels in _commonest(values)[:MOST_VALUES]
        ],
    )


def _commonest(values: Sequence[Value]) -> list[tuple[str, list[str]]]:
    """Each value with the runs that have it, the commonest first."""
    runs: dict[str, list[str]] = {}
    for value in values:
        runs.setdefault(value.words, []).append(value.run)
    return sorted(runs.items(), key=lambda item: -len(item[1]))


def _named(values: Sequence[Value]) -> str:
    """The values in words, with an example of each but where most have it."""
    told = []
    for text, labels in _commonest(values)[:MOST_VALUES]:
        where = labels[0] if len(labels) == 1 else f"{len(labels)} runs, as in {labels[0]}"
        told.append(f"{_short(text)} ({where})")
    return "; ".join(told)


def _text(value: Any) -> str:
    return "nothing" if value is None else _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _part(study: Study) -> str:
    return str(study.spec.get("metric", "test/top1")).partition("/")[0]
