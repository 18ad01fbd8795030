"""The result of a comparison: from its rows to numbers, verdicts and words."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from service.comparisons.cost import Probed, TrainingCost, cost_warnings, facts_of, probed, ratio_view
from service.comparisons.planner import comparison_of, precision_of
from service.comparisons.runs import Run, Runs, runs_of
from service.comparisons.statistics import (
    Added,
    Fixed,
    Judgement,
    MarginBelowResolution,
    Measured,
    PairJudgement,
    Stopping,
    VariantJudgement,
    judge,
)
from service.comparisons.unequal import FACTS, MOST_NAMED, unequal_fields, unknown_conditions
from service.comparisons.words import CostFacts, sentence
from service.database.models.studies import Study
from service.domain.studies import STUDY_TERMINAL, StudyState
from service.schemas.comparison_results import (
    ConditionView,
    PairResultView,
    ResultView,
    RunView,
    SeedsView,
    UnequalField,
    VariantResultView,
)
from service.schemas.comparisons import ComparisonSpec
from service.studies.store import TrialRow


def result_of(study: Study, rows: Sequence[TrialRow]) -> ResultView:
    """What a comparison has shown so far, of its rows alone. `rows` are ordered by the number of the trial.

    Only blocks of seeds that are finished count: those of which every variant has a number. A run that diverged has
    one, that of chance.
    """
    comparison, runs = comparison_of(study), runs_of(study, rows)
    unequal = unequal_fields(study, runs)
    judgement, warnings = _judged(_measured(study, comparison, runs, unequal))
    costs = {
        name: TrainingCost(runs.counted(name) or [run for run in runs.all if run.trial.variant == name])
        for name in study.specs
    }
    probes = probed(study, runs)
    pairs = [_pair(judgement, pair, _cost(judgement, pair, costs, probes)) for pair in judgement.pairs]
    memory = {pair.first: pair.memory_ratio for pair in pairs if pair.second == judgement.control}
    memory[judgement.control] = 1.0 if any(memory.values()) else None
    return ResultView(
        study_id=study.id,
        name=study.name,
        project=study.project,
        description=study.description,
        state=StudyState(study.state),
        metric=comparison.metric,
        weights=comparison.weights,
        control=judgement.control,
        pairs_judged=comparison.pairs,
        tests=judgement.tests,
        margin=judgement.margin,
        images=runs.images,
        resolution=judgement.resolution if runs.images else None,
        seeds=_seeds(study, comparison, runs, judgement),
        running=judgement.running,
        hidden=judgement.hidden,
        cut=judgement.cut,
        not_comparable=unequal,
        warnings=[*warnings, *judgement.warnings, *_warnings(study, comparison, runs), *cost_warnings(probes, runs)],
        summary=[pair.sentence for pair in pairs],
        variants=[_variant(each, runs, judgement, costs[each.name], memory[each.name]) for each in judgement.variants],
        pairs=pairs,
        probes=[probe.view() for probe in probes.values()],
        conditions=list(_conditions(study, comparison, runs)),
    )


def _measured(study: Study, comparison: ComparisonSpec, runs: Runs, unequal: Sequence[UnequalField]) -> Measured:
    images = runs.images
    return Measured(
        control=runs.plan.control,
        variants={name: runs.scores(name) for name in runs.plan.variants},
        images=images or 1,  # without any, there are no seeds either
        groups=runs.groups() if images else None,
        margin=comparison.margin if images else None,
        pairs=runs.plan.pairs,
        planned=len(runs.blocks) if _is_stopped(study, runs) else study.seeds,
        stopping=_stopping(study, comparison, runs),
        unequal=tuple(field.field for field in unequal),
        unfinished=any(run.seen.is_open for run in runs.all),
    )


def _is_stopped(study: Study, runs: Runs) -> bool:
    """Whether it ended before its last seed: whoever looks and stops needs what holds at any number of seeds."""
    return study.state in STUDY_TERMINAL and len(runs.blocks) < study.seeds


def _stopping(study: Study, comparison: ComparisonSpec, runs: Runs) -> Stopping:
    if study.seeds_added or _is_stopped(study, runs):
        return Added()
    return Fixed() if comparison.plan is None else precision_of(comparison.plan)


def _judged(measured: Measured) -> tuple[Judgement, list[str]]:
    """The judgement; a margin that no run can resolve is left out of it, and that is told."""
    try:
        return judge(measured), []
    except MarginBelowResolution as error:
        return judge(replace(measured, margin=None)), [f"{error}: nothing is called equal, the margin is left out"]


def _cost(
    judgement: Judgement, pair: PairJudgement, costs: Mapping[str, TrainingCost], probes: Mapping[str, Probed]
) -> CostFacts:
    probe = probes[pair.first] if pair.second == judgement.control else None
    return facts_of(costs[pair.first], costs[pair.second], probe, control=judgement.control)


def _pair(judgement: Judgement, pair: PairJudgement, cost: CostFacts) -> PairResultView:
    return PairResultView(
        **vars(pair),
        sentence=sentence(judgement, pair, cost),
        parameters_ratio=cost.parameters,
        macs_ratio=cost.macs,
        memory_ratio=cost.memory,
        throughput=None if cost.throughput is None else ratio_view(cost.throughput),
    )


def _variant(
    variant: VariantJudgement, runs: Runs, judgement: Judgement, cost: TrainingCost, memory_ratio: float | None
) -> VariantResultView:
    counted = set(runs.blocks)
    mine = [run for run in runs.all if run.trial.variant == variant.name]
    return VariantResultView(
        **vars(variant),
        is_control=variant.name == judgement.control,
        parameters=cost.parameters,
        macs=cost.macs,
        peak_memory_bytes=cost.memory,
        memory_ratio=memory_ratio,
        images_per_second=cost.images_per_second,
        runs=[_run(run, run.trial.block in counted, judgement.hidden) for run in sorted(mine, key=_block)],
    )


def _block(run: Run) -> int:
    return run.trial.block


def _run(run: Run, counted: bool, hidden: bool) -> RunView:
    return RunView(
        block=run.trial.block,
        seed=run.trial.seed,
        experiment_id=run.trial.experiment_id,
        state=run.seen.state,
        counted=counted,
        diverged=run.diverged,
        correct=None if hidden else run.seen.correct,
    )


def _seeds(study: Study, comparison: ComparisonSpec, runs: Runs, judgement: Judgement) -> SeedsView:
    plan, stopped = comparison.plan, _is_stopped(study, runs)
    return SeedsView(
        finished=judgement.n,
        planned=study.seeds if stopped else judgement.planned,
        most=max(study.seeds, plan.most if plan else 0),
        rule="stopped" if stopped else "added" if study.seeds_added else "precision" if plan else "fixed",
        half_width=plan.stop.half_width if plan else None,
        pilot=plan.pilot if plan else None,
        values=[runs.at[runs.plan.control, block].trial.seed for block in runs.blocks],
    )


def _warnings(study: Study, comparison: ComparisonSpec, runs: Runs) -> Iterator[str]:
    """What to know before believing it, beside what the numbers themselves say."""
    counted = [run for run in runs.all if run.trial.block in set(runs.blocks)]
    if study.chosen is not None:
        yield from _chosen_afterwards(study.chosen)
    if comparison.metric == "val/top1":
        yield "measured on what was selected on: val/top1 is what checkpoints and settings are chosen by too"
    if _is_stopped(study, runs):
        yield "it ended before its last seed: only intervals that hold for any number of seeds are told"
    elif study.seeds_added:
        yield "seeds were added after results had been seen: only intervals that hold for any number of seeds are told"
    diverged = Counter(run.trial.variant for run in counted if run.diverged)
    for name, number in diverged.items():
        verb = "counts" if number == 1 else "count"
        yield f"{number} of {len(runs.blocks)} runs of {name} diverged, and {verb} with the accuracy of chance"
    if lacking := [run for run in counted if run.trial.observed is None and not run.diverged]:
        yield f"predictions of single images are missing of {_some(lacking)}: nothing is told of new images there"
    if unknown := [run for run in unknown_conditions(runs) if run.experiment is not None]:
        yield f"{', '.join(FACTS)}: not known of {_some(unknown)}, so not compared there"
    if gone := [run for run in counted if run.experiment is None]:
        yield f"deleted after they were measured, so that they cannot be looked at again: {_some(gone)}"


def _chosen_afterwards(chosen: Mapping[str, list[str]]) -> Iterator[str]:
    yield "chosen afterwards: these runs had ended when the question was asked; fresh seeds would confirm it"
    if unused := chosen.get("unused"):
        more = f" and {len(unused) - MOST_NAMED} more" if len(unused) > MOST_NAMED else ""
        yield f"runs of the same settings that were not chosen: {', '.join(unused[:MOST_NAMED])}{more}"


def _some(runs: Sequence[Run]) -> str:
    more = f" and {len(runs) - MOST_NAMED} more" if len(runs) > MOST_NAMED else ""
    return "; ".join(run.label for run in runs[:MOST_NAMED]) + more


def _conditions(study: Study, comparison: ComparisonSpec, runs: Runs) -> Iterator[ConditionView]:
    """What was held equal: of the spec what all variants share, and what the runs say of themselves."""
    spec = study.specs[runs.plan.control]
    data, train = spec["data"], spec["train"]
    told = {
        "data": data["dataset"],
        "images": _said(runs.all, "split"),
        "measured on": f"{comparison.metric}, {comparison.weights} weights",
        "epochs": train["epochs"],
        "batch size": train["global_batch_size"],
        "precision": train["precision"],
        "deterministic": "yes" if train["deterministic"] else "no",
        "seeds drawn from": study.seed if study.chosen is None else None,
        "workers": _said(runs.all, "world_size") or spec["resources"]["workers"],
        "device": _said(runs.all, "device"),
        "torch": _said(runs.all, "torch"),
        "code": _said(runs.all, "code"),
    }
    for name, value in told.items():
        if value is not None:
            yield ConditionView(name=name, value=str(value))


def _said(runs: Sequence[Run], name: str) -> str | None:
    values = Counter(str(run.facts[name]) for run in runs if run.facts.get(name) is not None)
    return "; ".join(value for value, _ in values.most_common(MOST_NAMED)) or None
