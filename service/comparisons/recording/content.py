"""What the MLflow runs of a comparison say: descriptions, tags, parameters, numbers. Of its result alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from service.comparisons.formatting import seeds_so_far, verdict
from service.comparisons.recording.curves import Point
from service.comparisons.recording.view_state import HIGH, LOW, SUMMARY_TAG
from service.comparisons.report import opening
from service.comparisons.statistics.distributions import t_quantile
from service.schemas.comparison_results import ResultView, VariantResultView

LONGEST_TAG = 8000  # characters that MLflow takes
LEAST_SEEDS = 5  # of an interval
_MORE = "*More is in the artifact `report.md`.*"


@dataclass(frozen=True)
class Places:
    """Where a reader goes from the parent run; None where that is not known."""

    view: str | None = None  # the saved view
    service: str | None = None  # where people reach the API
    summaries: Mapping[str, str] | None = None  # pages of summary runs by variant


def description(view: ResultView, places: Places) -> str:
    """The description of the parent run in Markdown, cut to what MLflow takes: the verdict comes first."""
    headline, about, verdicts, *more = opening(view)
    blocks = [headline, verdicts, _links(view, places), about, *more]
    lines = "\n\n".join(block for block in blocks if block).split("\n")
    size, kept = 0, list[str]()
    for line in lines:
        size += len(line) + 1
        if size > LONGEST_TAG - len(_MORE) - 2:
            return "\n".join([*kept, "", _MORE])
        kept.append(line)
    return "\n".join(kept)


def _links(view: ResultView, places: Places) -> str:
    """Ids and names of variants need no escaping: they are of letters, digits and `.`, `_`, `+`, `-` alone."""
    told = []
    if places.view:
        told.append(f"[Curves and costs of the variants]({places.view})")
    if places.service:
        url = f"{places.service.rstrip('/')}/v1/comparisons/{view.study_id}"
        told += [f"[report]({url}/report)", f"[in the service]({url})"]
    told += [f"[`{name}`]({page})" for name, page in (places.summaries or {}).items()]
    told.append(f"`cbam compare show {view.study_id}`")
    return " · ".join(told) + "\n\nThe run of each seed is among the child runs."


def parent_tags(view: ResultView, owner: str) -> dict[str, str]:
    """Facts about the comparison, and its verdicts, for filters and columns."""
    told = [f"{pair.first} against {pair.second}: {verdict(pair)}" for pair in view.pairs]
    return {
        "mlflow.user": owner,
        "cbam.kind": "comparison",
        "cbam.comparison_id": view.study_id,
        "cbam.verdict": _cut("; ".join(told)),
        "cbam.metric": view.metric,
        "cbam.control": view.control,
        "cbam.seeds": seeds_so_far(view),
        "cbam.state": view.state,
    }


def summary_tags(view: ResultView, variant: VariantResultView, owner: str) -> dict[str, str]:
    """Facts about the summary run of a variant."""
    told = [
        f"{pair.first} against {pair.second}: {verdict(pair)}"
        for pair in view.pairs
        if variant.name in (pair.first, pair.second)
    ]
    return {
        "mlflow.user": owner,
        "cbam.kind": "summary",
        SUMMARY_TAG: view.study_id,
        "cbam.variant": variant.name,
        "cbam.verdict": _cut("; ".join(told)),
    }


def summary_name(variant: str, seeds: int) -> str:
    """The name of a summary run."""
    return f"{variant} (mean of {seeds} seed{'s' * (seeds != 1)})"


def curve_metrics(bands: Mapping[str, Sequence[Point]]) -> list[tuple[str, float, int]]:
    """Name, value and step of every point: the mean by the name of the metric, so that it stands beside its seeds'."""
    return [
        (name + end, value, point.step)
        for name, points in bands.items()
        for point in points
        for end, value in (("", point.mean), (LOW, point.low), (HIGH, point.high))
    ]


def final_metrics(view: ResultView, variant: VariantResultView, seeds: int) -> dict[str, float]:
    """What a variant reached over its first `seeds` seeds, with Student's 95 % interval, and what it costs.

    The interval is of this mean alone; differences have theirs, which are narrower or wider, in the parent run.
    """
    reached = variant.accuracies[:seeds]
    told: dict[str, float | None] = {
        f"{view.metric} over seeds": mean(reached) if reached else None,
        "parameters": variant.parameters,
        "macs": variant.macs,
        "peak_memory_bytes": variant.peak_memory_bytes,
        "images_per_second": variant.images_per_second,
        "diverged": variant.diverged,
        "seeds": seeds,
    }
    if view.metric.startswith("test/"):  # that of val has a curve
        told[view.metric] = told[f"{view.metric} over seeds"]
    if len(reached) >= LEAST_SEEDS:
        sd = stdev(reached)
        half = t_quantile(0.975, len(reached) - 1) * sd / math.sqrt(len(reached))
        told |= {f"{view.metric} over seeds{LOW}": mean(reached) - half}
        told |= {f"{view.metric} over seeds{HIGH}": mean(reached) + half, f"{view.metric} sd": sd}
    return {name: float(value) for name, value in told.items() if value is not None}


def summarised_seeds(finished: int, *, is_over: bool) -> int:
    """How many of the finished seeds a summary is of: all at the end, before that 1, 2, 4, 8 … of them.

    A curve in MLflow cannot be changed: a summary of more seeds is a new run, so there are few of them.
    """
    return finished if is_over or not finished else 1 << (finished.bit_length() - 1)


def _cut(words: str, most: int = 2000) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"
