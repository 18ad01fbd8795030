"""Judge a whole comparison: from arrays of results to verdicts."""

from dataclasses import replace
from itertools import combinations

import numpy as np

from service.comparisons.statistics.equivalence import check_margin
from service.comparisons.statistics.errors import TooFewSeeds, UnequalImages, UnknownControl, UnpairedSeeds
from service.comparisons.statistics.images import image_sums
from service.comparisons.statistics.judgement import Judgement, PairJudgement, VariantJudgement
from service.comparisons.statistics.measured import Added, Counts, Measured, Pairs, Precision, Scores
from service.comparisons.statistics.multiple import holm
from service.comparisons.statistics.pair_judging import Pair, Side, Stage, describe_pair
from service.comparisons.statistics.paired import paired_difference
from service.comparisons.statistics.planning import TwoStages, collapse_bound, two_stages
from service.comparisons.statistics.verdict import ALPHA, SEEDS_FOR_INTERVAL, Evidence, choose_verdict


def judge(measured: Measured) -> Judgement:
    """Evaluate a comparison: every difference with its intervals, tests and verdict, and every variant by itself.

    A difference is that of a variant less the control; with `Pairs.ALL` also of every two other variants, the later one
    less the earlier one.

    Raises:
        UnknownControl: The control is none of the variants.
        UnpairedSeeds: The variants have unequal numbers of seeds.
        UnequalImages: Results of a variant do not fit `images`, or it has neither counts nor predictions.
        MarginBelowResolution: The margin is below one image.
        TooFewSeeds: The pilot of `Precision` has fewer than two seeds.
    """
    counts = _counts(measured)
    n = len(counts[measured.control])
    names = _pairs(measured)
    plan = _plan(measured, counts, names)
    planned = plan.seeds if plan else measured.planned or n
    running = measured.unfinished or n < planned
    precision = isinstance(measured.stopping, Precision)
    stage = Stage(
        images=measured.images,
        margin=measured.margin,
        tests=len(names),
        pilot=measured.stopping.pilot if isinstance(measured.stopping, Precision) else None,
        hidden=running and precision,
        running=running,
        looked_before=isinstance(measured.stopping, Added),
    )
    shows_images = not running and n >= SEEDS_FOR_INTERVAL
    sides = {name: _side(name, measured, counts[name], shows_images) for name in measured.variants}
    pairs = [describe_pair(Pair(sides[first], sides[second]), stage) for first, second in names]
    cut = plan is not None and plan.wanted > plan.seeds
    return Judgement(
        control=measured.control,
        variants=tuple(_variant(side, measured.variants[side.name], stage) for side in sides.values()),
        pairs=tuple(_decide(pair, measured, running) for pair in _adjust(pairs)),
        images=measured.images,
        resolution=1 / measured.images,
        margin=measured.margin,
        tests=len(names),
        n=n,
        planned=planned,
        running=running,
        hidden=stage.hidden,
        cut=cut,
        unequal=measured.unequal,
        warnings=(_cut_warning(plan),) if plan and cut else (),
    )


def _counts(measured: Measured) -> dict[str, Counts]:
    """Return the correct images of every variant, [S], after all checks of the input."""
    if measured.control not in measured.variants:
        raise UnknownControl(f"the control {measured.control!r} is none of {', '.join(measured.variants)}")
    check_margin(measured.margin, measured.images)
    if measured.groups is not None and measured.groups.shape != (measured.images,):
        raise UnequalImages(f"there are {measured.images} images, but groups of {len(measured.groups)}")
    counts = {name: _count(name, scores, measured.images) for name, scores in measured.variants.items()}
    lengths = {name: len(values) for name, values in counts.items()}
    if len(set(lengths.values())) > 1:
        raise UnpairedSeeds(f"the variants have unequal numbers of seeds: {lengths}")
    if isinstance(measured.stopping, Precision) and measured.stopping.pilot < 2:
        raise TooFewSeeds("a pilot needs at least two seeds")
    return counts


def _count(name: str, scores: Scores, images: int) -> Counts:
    if scores.correct is not None:
        if scores.correct.ndim != 2 or scores.correct.shape[1] != images or scores.correct.dtype != np.bool_:
            raise UnequalImages(f"{name}: predictions must be a Boolean matrix of seeds x {images} images")
        return np.asarray(np.count_nonzero(scores.correct, axis=1), dtype=np.int64)
    if scores.counts is None:
        raise UnequalImages(f"{name}: there are neither predictions nor counts")
    counts = scores.counts
    whole = counts.ndim == 1 and counts.dtype.kind in "iu"
    if not whole or bool(((counts < 0) | (counts > images)).any()):
        raise UnequalImages(f"{name}: counts must be whole numbers of 0 to {images} images, one a seed")
    return counts.astype(np.int64, copy=False)


def _pairs(measured: Measured) -> list[tuple[str, str]]:
    """Return the pairs (first, second) whose difference first − second is told."""
    others = [name for name in measured.variants if name != measured.control]
    if measured.pairs is Pairs.CONTROL:
        return [(name, measured.control) for name in others]
    return [(later, earlier) for earlier, later in combinations([measured.control, *others], 2)]


def _plan(measured: Measured, counts: dict[str, Counts], names: list[tuple[str, str]]) -> TwoStages | None:
    """Return the number of seeds under `Precision`: the pilot, and once it is done what its s asks for."""
    rule = measured.stopping
    if not isinstance(rule, Precision):
        return None
    if len(counts[measured.control]) < rule.pilot:
        return TwoStages(rule.pilot, rule.pilot)
    pairs = [
        paired_difference(counts[first], counts[second], measured.images, pilot=rule.pilot) for first, second in names
    ]
    return two_stages((d.s for d in pairs), half_width=rule.half_width, pilot=rule.pilot, most=rule.most)


def _cut_warning(plan: TwoStages) -> str:
    return f"the half width asked for needs {plan.wanted} seeds, {plan.seeds} were allowed"


def _side(name: str, measured: Measured, counts: Counts, shows_images: bool) -> Side:
    correct = measured.variants[name].correct
    sums = image_sums(correct, measured.groups) if shows_images and correct is not None else None
    return Side(name, counts, sums)


def _variant(side: Side, scores: Scores, stage: Stage) -> VariantJudgement:
    n, shown = len(side.counts), not stage.hidden and len(side.counts) > 0
    return VariantJudgement(
        name=side.name,
        n=n,
        accuracies=tuple((side.counts / stage.images).tolist()) if shown else (),
        mean=int(side.counts.sum()) / (n * stage.images) if shown else None,
        sd=float(side.counts.std(ddof=1)) / stage.images if shown and n > 1 else None,
        diverged=scores.diverged,
        collapse_bound=collapse_bound(n, scores.diverged) if n else None,
    )


def _adjust(pairs: list[PairJudgement]) -> list[PairJudgement]:
    """Return the pairs with Holm's adjustment of each kind of p over all of them; a p that is missing counts as 1."""
    p, equal = _holm([pair.p for pair in pairs]), _holm([pair.p_equal for pair in pairs])
    images = [pair.new_images for pair in pairs]
    new, new_equal = _holm([x.p if x else None for x in images]), _holm([x.p_equal if x else None for x in images])
    return [
        replace(
            pair,
            p_holm=p[i],
            p_equal_holm=equal[i],
            new_images=replace(x, p_holm=new[i], p_equal_holm=new_equal[i]) if (x := images[i]) else None,
        )
        for i, pair in enumerate(pairs)
    ]


def _holm(values: list[float | None]) -> list[float | None]:
    adjusted = holm([1.0 if p is None else p for p in values])
    return [None if p is None else q for p, q in zip(values, adjusted, strict=True)]


def _decide(pair: PairJudgement, measured: Measured, running: bool) -> PairJudgement:
    """Return the pair with its verdict."""
    evidence = Evidence(
        comparable=not measured.unequal,
        running=running,
        n=pair.n,
        difference=pair.difference or 0.0,
        **_findings(pair, measured.margin),
    )
    verdict, scope = choose_verdict(evidence)
    return replace(pair, verdict=verdict, scope=scope)


def _findings(pair: PairJudgement, margin: float | None) -> dict[str, bool]:
    """Return what is shown: by the adjusted p, or, after seeds were added, by the anytime intervals."""
    new = pair.new_images
    if pair.anytime is not None:
        wide = margin or 0.0
        return {
            "differs": 0 not in pair.anytime,
            "equal": pair.anytime.within(wide),
            "differs_on_new": new is not None and 0 not in new.interval,
            "equal_on_new": new is not None and new.interval.within(wide),
        }
    return {
        "differs": _below(pair.p_holm),
        "equal": _below(pair.p_equal_holm),
        "differs_on_new": new is not None and _below(new.p_holm),
        "equal_on_new": new is not None and _below(new.p_equal_holm),
    }


def _below(p: float | None) -> bool:
    return p is not None and p < ALPHA
