"""All numbers of one pair of variants, as far as they may be told at this stage of the comparison."""

import math
from dataclasses import dataclass, replace

from service.comparisons.statistics.distributions import t_quantile
from service.comparisons.statistics.equivalence import tost
from service.comparisons.statistics.images import Crossed, ImageSums, crossed, mcnemar
from service.comparisons.statistics.intervals import Interval
from service.comparisons.statistics.judgement import NewImages, PairJudgement, Verdict
from service.comparisons.statistics.measured import Counts
from service.comparisons.statistics.paired import (
    Difference,
    correlation,
    paired_difference,
    sign_flip_test,
    t_interval,
    t_test,
    wins_ties_losses,
)
from service.comparisons.statistics.planning import anytime_radius, seeds_needed
from service.comparisons.statistics.verdict import ALPHA, SEEDS_FOR_INTERVAL, SEEDS_FOR_VERDICT


@dataclass(frozen=True, eq=False)
class Side:
    """One variant of a pair."""

    name: str
    counts: Counts
    sums: ImageSums | None
    """None without predictions of single images, or before they are looked at."""


@dataclass(frozen=True)
class Pair:
    """The difference first − second."""

    first: Side
    second: Side


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What may be told of any pair."""

    images: int
    margin: float | None
    tests: int
    """m."""
    pilot: int | None
    """The first seeds, from which s comes; None: from all."""
    hidden: bool
    running: bool
    looked_before: bool
    """Whether seeds were added after the means were seen, so that only the anytime interval holds."""


def describe_pair(pair: Pair, stage: Stage) -> PairJudgement:
    """Return the numbers of a pair, before Holm's adjustment over pairs and without its verdict."""
    n = len(pair.first.counts)
    told = PairJudgement(first=pair.first.name, second=pair.second.name, n=n, verdict=Verdict.NOT_SHOWN)
    if stage.hidden or not n:
        return told
    images = pair.first.counts - pair.second.counts
    told = replace(
        told,
        differences=tuple((images / stage.images).tolist()),
        difference=int(images.sum()) / (n * stage.images),
    )
    if n == 1:
        return told
    d = paired_difference(pair.first.counts, pair.second.counts, stage.images, pilot=stage.pilot)
    told = replace(told, s=d.s, warnings=_warnings(d))
    if stage.running or stage.looked_before:
        radius = anytime_radius(n, d.s, ALPHA / stage.tests)
        told = replace(told, anytime=Interval.around(d.mean, radius))
    if stage.running or n < SEEDS_FOR_INTERVAL:
        return told
    told = _describe_seeds(told, pair, d, stage)
    return told if stage.looked_before else _test_seeds(told, d, stage)


def _warnings(d: Difference) -> tuple[str, ...]:
    if not d.constant:
        return ()
    return ("all differences are equal: p is that of the sign-flip test, and s is taken as half an image",)


def _describe_seeds(told: PairJudgement, pair: Pair, d: Difference, stage: Stage) -> PairJudgement:
    """Add what holds whether or not seeds were added."""
    sums = (pair.first.sums, pair.second.sums)
    both = crossed(sums[0], sums[1], s=d.s, nu=d.nu) if sums[0] and sums[1] else None
    return replace(
        told,
        wins=wins_ties_losses(d.images),
        correlation=correlation(pair.first.counts, pair.second.counts),
        new_images=_describe_images(both, d, stage) if both else None,
        mcnemar=mcnemar(sums[0], sums[1]) if sums[0] and sums[1] else None,
        seeds_needed=seeds_needed(stage.margin, d.s, d.nu, stage.tests) if stage.margin else None,
        more_images=both is not None and stage.margin is not None and both.needs_more_images(stage.margin),
    )


def _test_seeds(told: PairJudgement, d: Difference, stage: Stage) -> PairJudgement:
    """Add the intervals and tests of a number of seeds that did not depend on the means."""
    told = replace(told, interval=t_interval(d), simultaneous=t_interval(d, ALPHA / stage.tests))
    if d.n < SEEDS_FOR_VERDICT:
        return told
    return replace(
        told,
        p=t_test(d),
        p_sign_flip=sign_flip_test(d),
        p_equal=tost(d.mean, d.se, d.nu, stage.margin) if stage.margin else None,
    )


def _describe_images(both: Crossed, d: Difference, stage: Stage) -> NewImages:
    tested = not stage.looked_before and d.n >= SEEDS_FOR_VERDICT
    return NewImages(
        interval=_anytime_on_new_images(both, d, stage) if stage.looked_before else both.interval(),
        nu=both.nu,
        p=both.test() if tested else None,
        p_holm=None,
        p_equal=both.test_equal(stage.margin) if tested and stage.margin else None,
        p_equal_holm=None,
        image_variance=both.image_variance,
    )


def _anytime_on_new_images(both: Crossed, d: Difference, stage: Stage) -> Interval:
    """Return an interval for new images that holds at every look at the seeds, at 1 − 0.05/m.

    Half of α for the seeds, by the anytime interval of these images, and half for the images, which are drawn once: the
    radii t(M−1, 1 − α/4m)·√Vb and that of the seeds are added (Bonferroni). Vb carries noise of the seeds too, so the
    interval is wider than needed. Derived here.
    """
    alpha = ALPHA / stage.tests / 2
    images = t_quantile(1 - alpha / 2, both.groups - 1) * math.sqrt(both.group_variance)
    return Interval.around(d.mean, anytime_radius(d.n, d.s, alpha) + images)
