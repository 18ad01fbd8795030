"""Seeds and images as two crossed samples, and McNemar's test of single seeds.

Seeds alone answer for these images. On images drawn anew, a difference that is sure over seeds may vanish: in
simulation seeds alone err in 12 to 63 %, the variance here in 4 to 7.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.comparisons.statistics.distributions import binomial_half_cdf, t_quantile, two_sided_p
from service.comparisons.statistics.equivalence import tost
from service.comparisons.statistics.intervals import Interval
from service.comparisons.statistics.measured import Correct

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageSums:
    """What the crossed variance needs of one variant, computed once for all its pairs."""

    images: int
    """N."""
    by_seed: Integers
    """[S], correct images."""
    by_group: Integers
    """[M], correct classifications over all seeds."""
    packed: NDArray[np.uint8]
    """[S, N/8], the matrix as bits."""
    sizes: Integers | None
    """[M], images of each group; None where each image is its own."""
    by_seed_and_group: Integers | None
    """[S, M]; None where each image is its own."""


def image_sums(correct: Correct, groups: Integers | None = None) -> ImageSums:
    """Return the sums of one variant's matrix [S, N], with the images in the given groups [N]."""
    by_seed = np.count_nonzero(correct, axis=1).astype(np.int64)
    packed = np.packbits(correct, axis=1)
    if groups is None:
        by_image = correct.sum(axis=0, dtype=np.int64)
        return ImageSums(correct.shape[1], by_seed, by_image, packed, None, None)
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    cells = np.add.reduceat(correct[:, order].astype(np.int64), starts, axis=1)
    return ImageSums(correct.shape[1], by_seed, cells.sum(axis=0), packed, sizes.astype(np.int64), cells)


@dataclass(frozen=True)
class Crossed:
    """The mean difference, and its variance over seeds and images both."""

    mean: float
    variance: float
    """V."""
    nu: float
    image_variance: float
    """max(Vb − Vr, 0), what infinitely many seeds leave."""
    group_variance: float
    """Vb, which carries noise of the seeds too."""
    groups: int
    """M."""

    def interval(self, alpha: float = 0.05) -> Interval:
        """Return d̄ ± t(ν, 1 − α/2)·√V."""
        return Interval.around(self.mean, t_quantile(1 - alpha / 2, self.nu) * math.sqrt(self.variance))

    def test(self) -> float:
        """Return the two-sided p of no difference."""
        return two_sided_p(self.mean / math.sqrt(self.variance), self.nu)

    def test_equal(self, margin: float) -> float:
        """Return the p of TOST."""
        return tost(self.mean, math.sqrt(self.variance), self.nu, margin)

    def needs_more_images(self, margin: float) -> bool:
        """Return whether the images alone leave an interval wider than the margin: 1.96·√image_variance ≥ margin."""
        return 1.96 * math.sqrt(self.image_variance) >= margin


def discordant(first: ImageSums, second: ImageSums) -> tuple[Integers, Integers]:
    """Return, for each seed, the images that only the first and only the second classified correctly, both [S]."""
    both = np.bitwise_count(first.packed & second.packed).sum(axis=1, dtype=np.int64)
    return first.by_seed - both, second.by_seed - both


def crossed(first: ImageSums, second: ImageSums, *, s: float, nu: float) -> Crossed | None:
    """Return the crossed estimate of first − second; s and ν are those of the seeds' difference. None for one group.

    D_si ∈ {−1, 0, 1} for S ≥ 2 seeds and N images in M groups; d_s, D̄_i, D̄ its means; e_si = D_si − d_s − D̄_i + D̄;
    z_g = Σ_{i∈g}(D̄_i − D̄)/N, z_sg = Σ_{i∈g} e_si/N; Va = s²/S, Vb = M/(M−1)·Σz_g², Vr = M/((M−1)S(S−1))·Σz_sg²;
    V = Va + max(Vb − Vr, 0). It is the variance of a mean of a two-way crossed random-effects layout by the method of
    moments (Cornfield & Tukey 1956), with images clustered in groups. Vr removes what Vb has of the noise of single
    cells, which Va has as well. ν is Satterthwaite's (1946) of the parts that are used, no less than that of the seeds.
    The groups, the bounds at 0 and at the seeds' ν were derived here, and hold by simulation
    (docs/design/statistics.md).
    """
    seeds, images = len(first.by_seed), first.images
    n, m = images, len(first.by_group)
    if m < 2:
        return None
    d = first.by_seed - second.by_seed  # S, times N
    y = first.by_group - second.by_group  # M, times S
    total = int(d.sum())
    if first.sizes is None or first.by_seed_and_group is None or second.by_seed_and_group is None:
        only_first, only_second = discordant(first, second)
        cells, along, square_sizes = int((only_first + only_second).sum()), n_times(d, 1), n
        sizes_y = total
    else:
        c = first.by_seed_and_group - second.by_seed_and_group
        cells, along = int(np.vdot(c, c)), n_times(c, first.sizes)
        square_sizes, sizes_y = int(first.sizes @ first.sizes), int(first.sizes @ y)
    y_squares = int(y @ y)
    # Σ_g (Σ_{i∈g} D̄_i − n_g D̄)², and Σ_sg (Σ_{i∈g} e_si)², from whole numbers; grand = D̄, off_s = d_s − D̄
    grand = total / (seeds * n)
    z2 = y_squares / seeds**2 - 2 * grand * sizes_y / seeds + grand * grand * square_sizes
    off = d / n - grand
    e2 = cells - y_squares / seeds - 2 * float(off @ (along - sizes_y / seeds)) + float(off @ off) * square_sizes
    va = s * s / seeds
    vb = m / (m - 1) * max(z2, 0.0) / n**2
    vr = m / ((m - 1) * seeds * (seeds - 1)) * max(e2, 0.0) / n**2
    v = va + max(vb - vr, 0.0)
    # where Vb ≤ Vr is not used, its parts only lower a ν that is bounded below
    parts = va**2 / nu + vb**2 / (m - 1) + vr**2 / ((seeds - 1) * (m - 1))
    return Crossed(grand, v, max(nu, v * v / parts), max(vb - vr, 0.0), vb, m)


def n_times(cells: Integers, sizes: Integers | int) -> NDArray[np.float64]:
    """Return Σ_g n_g Y_sg for each seed, [S]."""
    return np.asarray(cells @ sizes if isinstance(sizes, np.ndarray) else cells * sizes, dtype=np.float64)


def mcnemar(first: ImageSums, second: ImageSums) -> tuple[float, ...]:
    """Return the exact two-sided p of McNemar's test (1947) for each seed: binomial of the discordant images at 1/2.

    Never pool it over seeds: the same images come back with each seed, and a pooled test errs in up to 54 %.
    """
    only_first, only_second = discordant(first, second)
    fewer, both = np.minimum(only_first, only_second), only_first + only_second
    return tuple(np.minimum(1.0, 2 * binomial_half_cdf(fewer, both)).tolist())
