"""Distribution functions and quantiles, from `scipy.special`: it loads in a fifth of the time of `scipy.stats`.

The only module that imports SciPy, and only when a function is first called: the dispatcher and the API import the
statistics at their start. `tests/support/reference/statistics.R` has R's values of all of them.
"""

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@cache
def _special() -> Any:
    from scipy import special

    return special


def t_cdf(t: float, nu: float) -> float:
    """Return P(T ≤ t) of Student's t with `nu` degrees of freedom."""
    return float(_special().stdtr(nu, t))


def t_quantile(p: float, nu: float) -> float:
    """Return the t with P(T ≤ t) = p."""
    return float(_special().stdtrit(nu, p))


def two_sided_p(t: float, nu: float) -> float:
    """Return P(|T| ≥ |t|)."""
    return 2 * float(_special().stdtr(nu, -abs(t)))


def noncentral_t_cdf(t: float, nu: float, noncentrality: float) -> float:
    """Return P(T' ≤ t) of the noncentral t; 0 where SciPy 1.17 has NaN, which it has for values below some 1e-15."""
    value = float(_special().nctdtr(nu, noncentrality, t))
    return 0.0 if math.isnan(value) else value


def beta_quantile(p: float, a: float, b: float) -> float:
    """Return the x with P(X ≤ x) = p of a beta distribution."""
    return float(_special().betaincinv(a, b, p))


def chi2_quantile(p: float, nu: float) -> float:
    """Return the x with P(X ≤ x) = p of χ² with `nu` degrees of freedom."""
    return float(_special().chdtri(nu, 1 - p))


def normal_quantile(p: float) -> float:
    """Return the z with P(Z ≤ z) = p of the standard normal distribution."""
    return float(_special().ndtri(p))


def binomial_half_cdf(k: NDArray[np.int64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return P(X ≤ k) of a binomial distribution of n trials with probability 1/2, for whole arrays."""
    return np.asarray(_special().bdtr(k.astype(np.float64), n, 0.5), dtype=np.float64)
