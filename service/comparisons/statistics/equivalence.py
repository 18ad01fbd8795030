"""Whether a difference is shown to be smaller than a margin."""

from service.comparisons.statistics.distributions import t_cdf
from service.comparisons.statistics.errors import MarginBelowResolution


def tost(mean: float, se: float, nu: float, margin: float) -> float:
    """Return the p of the two one-sided tests that |true difference| < margin (Schuirmann 1987).

    p = max(P(T > (d̄ + margin)/se), P(T < (d̄ − margin)/se)). Below α it is the same as a 1 − 2α interval within the
    margin. Several of them get a Holm adjustment of their own.
    """
    return max(t_cdf(-(mean + margin) / se, nu), t_cdf((mean - margin) / se, nu))


def check_margin(margin: float | None, images: int) -> None:
    """Refuse a margin that no single run can resolve.

    Raises:
        MarginBelowResolution: The margin is below one image, 1/`images`.
    """
    if margin is not None and margin * images < 1 - 1e-9:
        raise MarginBelowResolution(margin, images)
