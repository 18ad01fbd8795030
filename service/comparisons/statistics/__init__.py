"""Statistics of paired comparisons: pure functions of arrays, without database, torch or pydantic.

`judge` (in `judge.py`) evaluates a whole comparison: `measured.py` has its input, `judgement.py` its answer. It stands on
`paired.py` (one difference over seeds), `multiple.py` (Holm), `equivalence.py` (equal within a margin), `images.py`
(seeds and images crossed, McNemar), `planning.py` (how many seeds, when to stop) and `verdict.py` (the rules in order).
`cost.py` is apart: ratios of images/s from probes. Importing the package loads neither NumPy nor SciPy.
"""

from typing import TYPE_CHECKING

from cbam_core import lazy_names

if TYPE_CHECKING:
    from service.comparisons.statistics.errors import (
        MarginBelowResolution,
        StatisticsError,
        TooFewSeeds,
        UnknownControl,
        UnpairedSeeds,
    )
    from service.comparisons.statistics.intervals import Interval
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
    from service.comparisons.statistics.measured import Added, Fixed, Measured, Pairs, Precision, Scores, Stopping

_HOMES = {
    **dict.fromkeys(
        ("MarginBelowResolution", "StatisticsError", "TooFewSeeds", "UnknownControl", "UnpairedSeeds"), "errors"
    ),
    "Interval": "intervals",
    **dict.fromkeys(
        ("Correlation", "Judgement", "NewImages", "PairJudgement", "Scope", "SeedsNeeded", "VariantJudgement"),
        "judgement",
    ),
    **dict.fromkeys(("Verdict", "WinsTiesLosses"), "judgement"),
    **dict.fromkeys(("Added", "Fixed", "Measured", "Pairs", "Precision", "Scores", "Stopping"), "measured"),
}

__all__ = [
    "Added",
    "Correlation",
    "Fixed",
    "Interval",
    "Judgement",
    "MarginBelowResolution",
    "Measured",
    "NewImages",
    "PairJudgement",
    "Pairs",
    "Precision",
    "Scope",
    "Scores",
    "SeedsNeeded",
    "StatisticsError",
    "Stopping",
    "TooFewSeeds",
    "UnknownControl",
    "UnpairedSeeds",
    "VariantJudgement",
    "Verdict",
    "WinsTiesLosses",
]

__getattr__ = lazy_names(__name__, _HOMES)
