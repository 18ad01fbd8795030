"""Statistics of paired comparisons: pure functions of arrays, without database, torch or pydantic.

`judge` (`judging.py`, one pair at a time in `pair_judging.py`) evaluates a whole comparison: `measured.py` has its
input, `judgement.py` its answer. It stands on `paired.py` (one difference over seeds), `multiple.py` (Holm),
`equivalence.py` (equal within a margin), `images.py` (seeds and images crossed, McNemar), `planning.py` (how many
seeds, when to stop) and `verdict.py` (the rules in order). `cost.py` is apart: ratios of images/s from probes.
`distributions.py` alone imports SciPy, when it is first called; importing the package loads no NumPy either.
"""

from typing import TYPE_CHECKING

from cbam_core import lazy_names

if TYPE_CHECKING:
    from service.comparisons.statistics.cost import throughput_ratio
    from service.comparisons.statistics.equivalence import check_margin, tost
    from service.comparisons.statistics.errors import (
        MarginBelowResolution,
        StatisticsError,
        TooFewSeeds,
        UnequalImages,
        UnknownControl,
        UnpairedSeeds,
        UnusableProbe,
    )
    from service.comparisons.statistics.images import Crossed, ImageSums, crossed, image_sums, mcnemar
    from service.comparisons.statistics.intervals import Interval, Ratio
    from service.comparisons.statistics.judgement import (
        Correlation,
        Judgement,
        NewImages,
        PairJudgement,
        Scope,
        SeedsNeeded,
        VariantJudgement,
        Verdict,
        WinsTiesLosses,
    )
    from service.comparisons.statistics.judging import judge
    from service.comparisons.statistics.measured import Added, Fixed, Measured, Pairs, Precision, Scores, Stopping
    from service.comparisons.statistics.multiple import holm
    from service.comparisons.statistics.paired import (
        Difference,
        clopper_pearson,
        correlation,
        paired_difference,
        sign_flip_test,
        t_interval,
        t_test,
        wins_ties_losses,
    )
    from service.comparisons.statistics.planning import (
        TwoStages,
        anytime_radius,
        collapse_bound,
        power,
        seeds_for,
        seeds_needed,
        smallest_difference,
        two_stages,
    )
    from service.comparisons.statistics.verdict import Evidence, choose_verdict

_HOMES = {
    "Added": "measured",
    "Correlation": "judgement",
    "Crossed": "images",
    "Difference": "paired",
    "Evidence": "verdict",
    "Fixed": "measured",
    "ImageSums": "images",
    "Interval": "intervals",
    "Judgement": "judgement",
    "MarginBelowResolution": "errors",
    "Measured": "measured",
    "NewImages": "judgement",
    "PairJudgement": "judgement",
    "Pairs": "measured",
    "Precision": "measured",
    "Ratio": "intervals",
    "Scope": "judgement",
    "Scores": "measured",
    "SeedsNeeded": "judgement",
    "StatisticsError": "errors",
    "Stopping": "measured",
    "TooFewSeeds": "errors",
    "TwoStages": "planning",
    "UnequalImages": "errors",
    "UnknownControl": "errors",
    "UnpairedSeeds": "errors",
    "UnusableProbe": "errors",
    "VariantJudgement": "judgement",
    "Verdict": "judgement",
    "WinsTiesLosses": "judgement",
    "anytime_radius": "planning",
    "check_margin": "equivalence",
    "choose_verdict": "verdict",
    "clopper_pearson": "paired",
    "collapse_bound": "planning",
    "correlation": "paired",
    "crossed": "images",
    "holm": "multiple",
    "image_sums": "images",
    "judge": "judging",
    "mcnemar": "images",
    "paired_difference": "paired",
    "power": "planning",
    "seeds_for": "planning",
    "seeds_needed": "planning",
    "sign_flip_test": "paired",
    "smallest_difference": "planning",
    "t_interval": "paired",
    "t_test": "paired",
    "throughput_ratio": "cost",
    "tost": "equivalence",
    "two_stages": "planning",
    "wins_ties_losses": "paired",
}

__all__ = [
    "Added",
    "Correlation",
    "Crossed",
    "Difference",
    "Evidence",
    "Fixed",
    "ImageSums",
    "Interval",
    "Judgement",
    "MarginBelowResolution",
    "Measured",
    "NewImages",
    "PairJudgement",
    "Pairs",
    "Precision",
    "Ratio",
    "Scope",
    "Scores",
    "SeedsNeeded",
    "StatisticsError",
    "Stopping",
    "TooFewSeeds",
    "TwoStages",
    "UnequalImages",
    "UnknownControl",
    "UnpairedSeeds",
    "UnusableProbe",
    "VariantJudgement",
    "Verdict",
    "WinsTiesLosses",
    "anytime_radius",
    "check_margin",
    "choose_verdict",
    "clopper_pearson",
    "collapse_bound",
    "correlation",
    "crossed",
    "holm",
    "image_sums",
    "judge",
    "mcnemar",
    "paired_difference",
    "power",
    "seeds_for",
    "seeds_needed",
    "sign_flip_test",
    "smallest_difference",
    "t_interval",
    "t_test",
    "throughput_ratio",
    "tost",
    "two_stages",
    "wins_ties_losses",
]

__getattr__ = lazy_names(__name__, _HOMES)
