"""What `judge` says of a comparison. Every number is a fraction of 1: 0.01 is one percentage point."""

from dataclasses import dataclass
from enum import StrEnum

from service.comparisons.statistics.intervals import Interval


class Verdict(StrEnum):
    """What a pair's numbers allow to say of its first variant against its second one."""

    NOT_COMPARABLE = "not comparable"
    RUNNING = "running"
    NOT_SHOWN = "not shown"
    BETTER_WITHIN_MARGIN = "better, by less than the margin"
    WORSE_WITHIN_MARGIN = "worse, by less than the margin"
    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal within the margin"


class Scope(StrEnum):
    """Which images a verdict is about."""

    NEW_IMAGES = "new images"
    THESE_IMAGES = "these images only"


@dataclass(frozen=True, kw_only=True)
class WinsTiesLosses:
    """In how many of the paired seeds the first variant was ahead, level, and behind."""

    wins: int
    ties: int
    losses: int
    interval: Interval
    """Exact 95 % interval of the share of wins (Clopper & Pearson 1934)."""


@dataclass(frozen=True)
class Correlation:
    """How much the results of two variants go together over paired seeds; 0 means that pairing bought nothing."""

    value: float
    interval: Interval
    """95 %, by Fisher's z."""


@dataclass(frozen=True)
class SeedsNeeded:
    """How many seeds show a true difference of the margin with power 0.8; plan with `high`. None: more than 10,000."""

    low: int | None
    """With the observed s."""
    high: int | None
    """With the upper 80 % confidence limit of s."""


@dataclass(frozen=True, kw_only=True)
class NewImages:
    """The difference where seeds and images are both a sample: what other images of the same kind would show."""

    interval: Interval
    nu: float
    """Degrees of freedom of the interval."""
    p: float | None
    p_holm: float | None
    p_equal: float | None
    """TOST for the margin; None without a margin."""
    p_equal_holm: float | None
    image_variance: float
    """max(Vb − Vr, 0): what remains with infinitely many seeds."""


@dataclass(frozen=True, kw_only=True)
class PairJudgement:
    """The difference first − second of two variants, and what it shows. A number is None where it must not be told.

    With fewer than 5 seeds there are dots only; with 5 to 7 intervals and no p; from 8 on all. While a fixed number of
    seeds runs, and after seeds were added, the anytime interval stands in the place of the others. While `Precision`
    runs, everything but `n` is hidden.
    """

    first: str
    second: str
    """The control, or with `Pairs.ALL` the earlier one."""
    n: int
    """Paired seeds."""
    verdict: Verdict
    scope: Scope | None = None
    """Only with better, worse and equal."""
    differences: tuple[float, ...] = ()
    """One for each seed: the dots of the figure; empty while hidden."""
    difference: float | None = None
    """Their mean."""
    s: float | None = None
    """Standard deviation of the differences, no less than half an image; under `Precision` that of the pilot."""
    interval: Interval | None = None
    """95 %, unadjusted."""
    simultaneous: Interval | None = None
    """The same at 1 − 0.05/m (Bonferroni), descriptive."""
    anytime: Interval | None = None
    """Holds at every look, at 1 − 0.05/m; infinite for 2 to 4 seeds. Provisional while seeds run."""
    p: float | None = None
    p_holm: float | None = None
    p_sign_flip: float | None = None
    """Exact, no less than 2^(1−n)."""
    p_equal: float | None = None
    """TOST for the margin; None without a margin."""
    p_equal_holm: float | None = None
    wins: WinsTiesLosses | None = None
    correlation: Correlation | None = None
    new_images: NewImages | None = None
    """None without predictions of single images."""
    mcnemar: tuple[float, ...] | None = None
    """Exact p of each seed alone, never pooled; None without predictions of single images."""
    seeds_needed: SeedsNeeded | None = None
    """For a true difference of the margin; None without a margin."""
    more_images: bool = False
    """Whether no number of seeds can resolve the margin on this many images."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VariantJudgement:
    """One variant by itself."""

    name: str
    n: int
    accuracies: tuple[float, ...] = ()
    """One for each seed; empty while hidden."""
    mean: float | None = None
    sd: float | None = None
    """Between seeds; None with one seed."""
    diverged: int = 0
    collapse_bound: float | None = None
    """Upper 95 % limit of the share of runs that diverge: 1 − 0.05^(1/n) where none of n did."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A comparison, judged."""

    control: str
    variants: tuple[VariantJudgement, ...]
    pairs: tuple[PairJudgement, ...]
    images: int
    resolution: float
    """One image, 1/N: no smaller difference can be seen in one run."""
    margin: float | None
    tests: int
    """m, the differences that Holm's procedure takes together."""
    n: int
    """Paired seeds of which every variant has a result."""
    planned: int
    """Seeds in the end; under `Precision` the pilot until it is done, then the number that its s asks for."""
    running: bool
    hidden: bool
    """Whether means and dots are hidden (`Precision`, before the last seed)."""
    cut: bool
    """Whether `Precision.most` allowed fewer seeds than the half width needs."""
    unequal: tuple[str, ...]
    warnings: tuple[str, ...] = ()
