"""A judged difference in words: what is shown, on which images, how surely, and at what cost."""

import math
from dataclasses import dataclass

from service.comparisons.statistics.intervals import Interval, Ratio
from service.comparisons.statistics.judgement import Judgement, PairJudgement, Scope, Verdict
from service.comparisons.statistics.verdict import ALPHA, SEEDS_FOR_INTERVAL, SEEDS_FOR_VERDICT

UNTUNED = ("one training set", "untuned")
"""What limits most comparisons."""
COST_TOLERANCE = 0.02
"""Costs are equal where each is within 2 % of the control's."""


@dataclass(frozen=True, kw_only=True)
class CostFacts:
    """Costs of the first variant over those of the second one; None where it is not known."""

    throughput: Ratio | None = None
    """Images/s."""
    not_measured: str = ""
    """Why there are no images/s, in words."""
    parameters: float | None = None
    macs: float | None = None
    memory: float | None = None
    """Peak."""


def sentence(
    judgement: Judgement, pair: PairJudgement, cost: CostFacts | None = None, *, conditions: tuple[str, ...] = UNTUNED
) -> str:
    """Return what one pair of a comparison shows, in points (percentage points of accuracy).

    A difference that was not found is never called none: it is not shown, or equal within the margin. `conditions` end
    the sentence: what the comparison was limited to.
    """
    if pair.verdict is Verdict.NOT_COMPARABLE:
        fields = judgement.unequal
        verb = "differs" if len(fields) == 1 else "differ"
        return f"{pair.first} and {pair.second} are not comparable: {', '.join(fields)} {verb}."
    if pair.verdict is Verdict.RUNNING:
        return _running(judgement, pair)
    if pair.n < SEEDS_FOR_VERDICT:
        parts = [_few(judgement, pair)]
    else:
        parts = [_finding(judgement, pair), _new_images(judgement, pair), _what_would_help(judgement, pair)]
    return " ".join(part for part in (*parts, _cost(cost, conditions)) if part)


def _running(judgement: Judgement, pair: PairJudgement) -> str:
    done = f"{pair.n} of {judgement.planned} paired seeds are done"
    if judgement.hidden:
        return f"{done}; means are hidden until the last one."
    if pair.difference is None:
        return f"{done}."
    number = f"{pair.first} less {pair.second} is {_points(pair.difference, judgement)} points so far"
    if pair.anytime is None or math.isinf(pair.anytime.high):
        return f"{done}; {number}, provisional, without an interval yet."
    return f"{done}; {number} {_interval(pair.anytime, judgement)}, provisional."


def _few(judgement: Judgement, pair: PairJudgement) -> str:
    seeds = f"{pair.n} paired {'seed' if pair.n == 1 else 'seeds'}"
    if pair.difference is None:
        return f"There are no paired seeds of {pair.first} and {pair.second}."
    number = f"{pair.first} less {pair.second} is {_points(pair.difference, judgement)} points"
    told = pair.interval or pair.anytime
    if pair.n < SEEDS_FOR_INTERVAL or told is None or math.isinf(told.high):
        return f"{number} over {seeds}: an interval takes {SEEDS_FOR_INTERVAL}, a verdict {SEEDS_FOR_VERDICT}."
    return f"{number} {_interval(told, judgement)} over {seeds}: a verdict takes {SEEDS_FOR_VERDICT}."


def _finding(judgement: Judgement, pair: PairJudgement) -> str:
    first, second = pair.first, pair.second
    margin = _margin(judgement)
    by = f"{_points(pair.difference or 0.0, judgement)} points"
    told = pair.interval or pair.anytime
    if told is not None:
        by = f"{by} {_interval(told, judgement)}"
    words = {
        Verdict.BETTER: f"{first} beats {second} by {by}",
        Verdict.WORSE: f"{first} is worse than {second}: {by}",
        Verdict.BETTER_WITHIN_MARGIN: f"{first} beats {second}, by less than {margin}: {by}",
        Verdict.WORSE_WITHIN_MARGIN: f"{first} is worse than {second}, by less than {margin}: {by}",
        Verdict.EQUAL: f"{first} equals {second} within ±{margin}: {by}",
        Verdict.NOT_SHOWN: f"it is not shown that {first} and {second} differ: {by}",
    }[pair.verdict]
    return f"On these {judgement.images:,} images {words} ({_certainty(judgement, pair)})."


def _certainty(judgement: Judgement, pair: PairJudgement) -> str:
    several = judgement.tests > 1
    of = f" of {judgement.tests}" if several else ""
    if pair.anytime is not None:
        bound = f"{100 * ALPHA / judgement.tests:.2g} %"
        return f"{pair.n} paired seeds, a number not fixed beforehand: an interval that holds at any, error {bound}"
    told = [f"{pair.n} paired seeds"]
    name = "Holm p" if several else "p"
    if pair.verdict is not Verdict.EQUAL and pair.p_holm is not None:
        told.append(f"{name} {_p(pair.p_holm)}{of}")
    within = (Verdict.EQUAL, Verdict.BETTER_WITHIN_MARGIN, Verdict.WORSE_WITHIN_MARGIN)
    if pair.verdict in within and pair.p_equal_holm is not None:
        told.append(f"{name} {_p(pair.p_equal_holm)}{of} for less than the margin")
    return ", ".join(told)


def _new_images(judgement: Judgement, pair: PairJudgement) -> str:
    if pair.new_images is None:
        return "New images: unknown without predictions of single images."
    shown = "shown too" if pair.scope is Scope.NEW_IMAGES else "not shown"
    return f"New images {_interval(pair.new_images.interval, judgement)}: {shown}."


def _what_would_help(judgement: Judgement, pair: PairJudgement) -> str:
    """Say what a comparison that has shown nothing would need for its margin."""
    if pair.verdict is not Verdict.NOT_SHOWN or judgement.margin is None:
        return ""
    margin = _margin(judgement)
    if pair.more_images:
        return f"To show {margin} on new images takes more images, not more seeds."
    needed = pair.seeds_needed
    if needed is None or needed.high is None or needed.high <= pair.n:
        return ""
    return f"To show {margin} takes {needed.low} to {needed.high} seeds."


def _cost(cost: CostFacts | None, conditions: tuple[str, ...]) -> str:
    facts, equal = [], []
    if cost and cost.throughput:
        low, high = cost.throughput.interval.low, cost.throughput.interval.high
        facts.append(f"images/s × {cost.throughput.value:.2f} [{low:.2f}, {high:.2f}]")
        equal.append(_is_equal(low, high))
    elif cost and cost.not_measured:
        facts.append(f"images/s not compared ({cost.not_measured})")
    for name, ratio in (("parameters", cost.parameters), ("MACs", cost.macs)) if cost else ():
        if ratio is not None:
            facts.append(f"{name} {_percent(ratio)}")
            equal.append(_is_equal(ratio, ratio))
    if cost and cost.memory is not None:
        facts.append(f"memory × {cost.memory:.2f}")
        equal.append(_is_equal(cost.memory, cost.memory))
    if not facts:
        facts, so = ["costs were not measured"], ""
    elif False in equal:
        so = ", so not at equal cost"
    else:
        so = ", so at equal cost" if None not in equal and cost and cost.throughput else ", equal cost not shown"
    text = ", ".join(facts) + so
    return (
        "; ".join([text[0].upper() + text[1:], ", ".join(conditions)] if conditions else [text[0].upper() + text[1:]])
        + "."
    )


def _is_equal(low: float, high: float) -> bool | None:
    """Return whether a cost of `low` to `high` is that of the control, or None where the interval leaves it open."""
    if high < 1 - COST_TOLERANCE or low > 1 + COST_TOLERANCE:
        return False
    return True if low >= 1 - COST_TOLERANCE and high <= 1 + COST_TOLERANCE else None


def _points(value: float, judgement: Judgement) -> str:
    """Return a fraction as points, to a tenth, or to a hundredth where one image is less than 0.05 points."""
    digits = 1 if judgement.resolution >= 0.0005 else 2
    number = round(100 * value, digits) + 0.0  # no −0.0
    return f"{number:.{digits}f}".replace("-", "−")


def _margin(judgement: Judgement) -> str:
    number = f"{100 * (judgement.margin or 0):g}"
    return f"{number} point" if number == "1" else f"{number} points"


def _interval(interval: Interval, judgement: Judgement) -> str:
    return f"[{_points(interval.low, judgement)}, {_points(interval.high, judgement)}]"


def _percent(ratio: float) -> str:
    change = round(100 * (ratio - 1), 3)
    if not change:
        return "equal"
    number = f"{change:+.0f}" if abs(change) >= 10 else f"{change:+.2g}"
    return f"{number} %".replace("-", "−")


def _p(p: float) -> str:
    """Return p to two digits, and to more where rounding would cross the level of significance."""
    if p < 0.001:
        return "< 0.001"
    digits = 2
    while (float(f"{p:.{digits}g}") < ALPHA) != (p < ALPHA):
        digits += 1
    return f"{p:.{digits}g}"
