"""One difference over paired seeds: mean, interval, t-test, sign-flip test, wins, correlation of the pairs.

Accuracies enter as counts of images. They are subtracted as whole numbers and divided by N last: eight equal
differences of floats have s = 4e-17, and a t-test of them p = 2e-98.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.comparisons.statistics.distributions import beta_quantile, normal_quantile, t_quantile, two_sided_p
from service.comparisons.statistics.errors import TooFewSeeds, UnpairedSeeds
from service.comparisons.statistics.intervals import Interval
from service.comparisons.statistics.judgement import Correlation, WinsTiesLosses
from service.comparisons.statistics.measured import Counts


@dataclass(frozen=True, eq=False)
class Difference:
    """d = first − second of n ≥ 2 paired seeds, and the standard deviation that its error is judged by."""

    images: NDArray[np.int64]
    """[n], as counts of images."""
    of: int
    """N, the images of each run."""
    s: float
    """max(s_d, δ/2) with δ = 1/N, a fraction: a count cannot be known better than that."""
    nu: int
    """Degrees of freedom of s."""
    constant: bool
    """Whether s_d is 0, so that a t-test means nothing."""

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.images)

    @property
    def mean(self) -> float:
        """The mean difference, a fraction."""
        return int(self.images.sum()) / (self.n * self.of)

    @property
    def se(self) -> float:
        """s/√n."""
        return self.s / math.sqrt(self.n)


def paired_difference(first: Counts, second: Counts, of: int, *, pilot: int | None = None) -> Difference:
    """Return the difference of two variants' counts of correct images, both [n], out of `of` images.

    With `pilot`, s comes from the first `pilot` seeds alone and has pilot − 1 degrees of freedom (Stein 1945).

    Raises:
        UnpairedSeeds: The two have unequal numbers of seeds.
        TooFewSeeds: There are fewer than two.
    """
    if len(first) != len(second):
        raise UnpairedSeeds
    images = np.asarray(first, dtype=np.int64) - np.asarray(second, dtype=np.int64)
    known = images[:pilot]
    if len(known) < 2:
        raise TooFewSeeds
    total = int(known.sum())
    # n Σd² − (Σd)² is exact in whole numbers, so that equal differences give 0
    squares = len(known) * int((known * known).sum()) - total * total
    s_d = math.sqrt(squares / (len(known) * (len(known) - 1)))
    return Difference(images, of, max(s_d, 0.5) / of, len(known) - 1, constant=squares == 0)


def t_interval(d: Difference, alpha: float = 0.05) -> Interval:
    """Return the interval d̄ ± t(ν, 1 − α/2)·s/√n (Student 1908)."""
    return Interval.around(d.mean, t_quantile(1 - alpha / 2, d.nu) * d.se)


def t_test(d: Difference) -> float:
    """Return the two-sided p of the paired t-test, t = d̄·√n/s (Student 1908).

    Where all differences (of the pilot) are equal there is no t, and p is that of the sign-flip test: 1 if they are 0,
    else 2^(1−n).
    """
    return sign_flip_test(d) if d.constant else two_sided_p(d.mean / d.se, d.nu)


def sign_flip_test(d: Difference) -> float:
    """Return the exact two-sided p of the sign-flip (Fisher randomization) test (Fisher 1935, section 21).

    Of all 2^n ways to give each |d| a sign, the share whose |sum| is at least the observed one; no less than 2^(1−n).
    The sums are counted by the recursion over the pairs: a sum of signed |d| is 2X − Σ|d|, with X a sum of a subset.
    """
    sizes = np.abs(d.images[d.images != 0])
    if not len(sizes):
        return 1.0
    sizes = sizes // np.gcd.reduce(sizes)
    total = int(sizes.sum())
    observed = abs(int(np.sign(d.images[d.images != 0]) @ sizes))
    share = np.zeros(total + 1)  # of the subsets whose sum is the index
    share[0] = 1.0
    reached = 0
    for size in sizes.tolist():
        reached += size
        shifted = share[: reached - size + 1].copy()
        share[: reached + 1] /= 2
        share[size : reached + 1] += shifted / 2
    return min(1.0, 2 * float(share[(total + observed + 1) // 2 :].sum())) if observed else 1.0


def clopper_pearson(k: int, n: int, alpha: float = 0.05) -> Interval:
    """Return the exact interval of a share of which k of n were seen (Clopper & Pearson 1934), by beta quantiles."""
    low = beta_quantile(alpha / 2, k, n - k + 1) if k else 0.0
    high = beta_quantile(1 - alpha / 2, k + 1, n - k) if k < n else 1.0
    return Interval(low, high)


def wins_ties_losses(images: Sequence[int] | NDArray[np.int64]) -> WinsTiesLosses:
    """Return how many differences are positive, zero and negative, with the exact interval of wins of n."""
    signs = np.sign(np.asarray(images))
    wins, losses = int((signs > 0).sum()), int((signs < 0).sum())
    interval = clopper_pearson(wins, len(signs))
    return WinsTiesLosses(wins=wins, ties=len(signs) - wins - losses, losses=losses, interval=interval)


def correlation(first: Counts, second: Counts, alpha: float = 0.05) -> Correlation | None:
    """Return Pearson's r of the pairs with its interval tanh(artanh r ± z(1 − α/2)/√(n−3)) (Fisher 1921).

    None for fewer than 4 pairs, or where one of the two does not vary.
    """
    n = len(first)
    x, y = first - np.mean(first), second - np.mean(second)
    norm = math.sqrt(float(x @ x) * float(y @ y))
    if n < 4 or not norm:
        return None
    r = max(-1.0, min(1.0, float(x @ y) / norm))
    if abs(r) > 1 - 1e-12:
        return Correlation(r, Interval(r, r))
    radius = normal_quantile(1 - alpha / 2) / math.sqrt(n - 3)
    return Correlation(r, Interval(math.tanh(math.atanh(r) - radius), math.tanh(math.atanh(r) + radius)))
