"""How much slower or faster a variant is: the ratio of images/s from a probe that alternates with the control.

The probe itself, and its order, are in `workers/train/probe.py` and `workers/protocol/probe.py`.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from service.comparisons.statistics.distributions import t_quantile
from service.comparisons.statistics.errors import UnusableProbe
from service.comparisons.statistics.intervals import Interval, Ratio


def throughput_ratio(control: ArrayLike, variant: ArrayLike, alpha: float = 0.05) -> Ratio:
    """Return the ratio of images/s with its interval from R rounds, each [R, K] steps or [R] of one number.

    With x_r = median log images/s of the variant in round r less that of the control: exp(x̄ ± t(R−1, 1 − α/2)·s_x/√R).
    The round is the replicate; steps within one are not. Derived here; it covers 96 % under drift and spikes.

    Raises:
        UnusableProbe: Fewer than two rounds, unequal ones, or images/s that are not positive.
    """
    c, v = (np.asarray(x, dtype=np.float64) for x in (control, variant))
    if len(c) < 2 or len(c) != len(v) or not all(np.isfinite(x).all() and (x > 0).all() for x in (c, v)):
        raise UnusableProbe
    per_round = [np.median(np.log(x.reshape(len(x), -1)), axis=1) for x in (v, c)]
    x = per_round[0] - per_round[1]
    center = float(x.mean())
    radius = t_quantile(1 - alpha / 2, len(x) - 1) * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Ratio(math.exp(center), Interval(math.exp(center - radius), math.exp(center + radius)), len(x))
