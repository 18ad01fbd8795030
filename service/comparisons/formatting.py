"""Numbers of a result as text: points, intervals, p, costs. Imports the schemas alone, so that a client may use it.

Accuracies and differences are fractions of 1, told in percentage points: to a tenth, or to a hundredth where one image
is less than 0.05 points.
"""

from service.schemas.comparison_results import IntervalView, PairResultView, RatioView, ResultView

NONE = "–"
LEVEL = 0.05
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


def points(value: float | None, view: ResultView, *, signed: bool = False) -> str:
    """Return a fraction in percentage points, without the unit."""
    if value is None:
        return NONE
    digits = 1 if (view.resolution or 0) >= 0.0005 else 2
    number = round(100 * value, digits) + 0.0  # no −0.0
    return f"{number:{'+' if signed and number else ''}.{digits}f}".replace("-", "−")


def interval(told: IntervalView | None, view: ResultView) -> str:
    """Return an interval in points; an end that is unbounded as −∞ or ∞, and nothing of one without ends."""
    if told is None or (told.low is None and told.high is None):
        return ""
    low = "−∞" if told.low is None else points(told.low, view)
    high = "∞" if told.high is None else points(told.high, view)
    return f"[{low}, {high}]"


def margin(view: ResultView) -> str:
    """Return the margin with its unit, as in ±0.5 points; nothing without one."""
    if view.margin is None:
        return ""
    number = f"{100 * view.margin:g}"
    return f"±{number} {'point' if number == '1' else 'points'}"


def p_value(p: float | None) -> str:
    """Return p to two digits, and to more where rounding would cross 0.05."""
    if p is None:
        return NONE
    if p < 0.001:
        return "< 0.001"
    digits = 2
    while (float(f"{p:.{digits}g}") < LEVEL) != (p < LEVEL):
        digits += 1
    return f"{p:.{digits}g}"


def count(value: float | None) -> str:
    """Return a large number to three digits, as in 272 k or 1.82 G."""
    if value is None:
        return NONE
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{_three_digits(value / size)} {unit}"
    return _three_digits(value)


def speed(value: float | None) -> str:
    """Return images/s to the whole, below 100 to three digits."""
    return NONE if value is None else f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def memory(value: int | None) -> str:
    """Return bytes to three digits, as in 1.5 GiB."""
    if value is None:
        return NONE
    size, unit = float(value), 0
    while size >= 1023.5 and unit < len(_BYTES) - 1:
        size, unit = size / 1024, unit + 1
    return f"{_three_digits(size)} {_BYTES[unit]}"


def ratio(value: float | None) -> str:
    """Return a ratio, as in × 1.02."""
    return NONE if value is None else f"× {value:.2f}"


def throughput(told: RatioView | None) -> str:
    """Return a ratio of images/s with its interval, as in × 0.93 [0.91, 0.95]."""
    return NONE if told is None else f"{ratio(told.value)} {ends(told)}"


def ends(told: RatioView) -> str:
    """Return the interval of a ratio."""
    return f"[{told.interval.low:.2f}, {told.interval.high:.2f}]"


def verdict(pair: PairResultView) -> str:
    """Return the verdict with the images that it is about."""
    return pair.verdict if pair.scope is None else f"{pair.verdict} ({pair.scope})"


def seeds_so_far(view: ResultView) -> str:
    """Return how many paired seeds there are, of how many where that is not all."""
    finished, planned = view.seeds.finished, view.seeds.planned
    unit = "paired seed" if planned == 1 else "paired seeds"
    return f"{finished} {unit}" if finished >= planned else f"{finished} of {planned} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"
