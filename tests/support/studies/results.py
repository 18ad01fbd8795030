"""Results of comparisons with any numbers, for what shows them."""

from service.schemas.comparison_results import (
    IntervalView,
    PairResultView,
    ResultView,
    SeedsView,
    UnequalField,
    UnequalValueView,
    VariantResultView,
    WinsView,
)


def interval(low: float | None, high: float | None) -> IntervalView:
    return IntervalView(low=low, high=high)


def variant(name: str, **changes: object) -> VariantResultView:
    fields: dict[str, object] = {
        "name": name,
        "is_control": name == "plain",
        "n": 8,
        "accuracies": [0.9] * 8,
        "mean": 0.9,
        "sd": 0.01,
        "diverged": 0,
        "collapse_bound": 0.31,
        "parameters": 1000,
        "macs": 2000,
        "peak_memory_bytes": None,
        "memory_ratio": None,
        "images_per_second": 50.0,
        "runs": [],
    }
    return VariantResultView.model_validate(fields | changes)


def pair(first: str = "cbam", second: str = "plain", **changes: object) -> PairResultView:
    fields: dict[str, object] = dict.fromkeys(PairResultView.model_fields) | {
        "first": first,
        "second": second,
        "n": 8,
        "verdict": "better",
        "scope": "these images only",
        "sentence": "",
        "differences": [],
        "difference": 0.0125,
        "interval": interval(0.005, 0.02),
        "p_holm": 0.012,
        "wins": WinsView(wins=6, ties=1, losses=1, interval=interval(0.4, 0.9)),
        "more_images": False,
        "warnings": [],
    }
    return PairResultView.model_validate(fields | changes)


def result(**changes: object) -> ResultView:
    """Plain and CBAM over 8 seeds and 400 images."""
    seeds = {"finished": 8, "planned": 8, "most": 8, "rule": "fixed", "half_width": None, "pilot": None, "values": []}
    fields: dict[str, object] = {
        "study_id": "abcdefghjkmn",
        "name": "does-cbam-help",
        "project": "tests",
        "description": "",
        "state": "SUCCEEDED",
        "metric": "test/top1",
        "weights": "final",
        "control": "plain",
        "pairs_judged": "control",
        "tests": 1,
        "margin": 0.01,
        "images": 400,
        "resolution": 0.0025,
        "seeds": SeedsView.model_validate(seeds),
        "running": False,
        "hidden": False,
        "cut": False,
        "not_comparable": [],
        "warnings": [],
        "summary": ["CBAM beats plain."],
        "variants": [variant("plain"), variant("cbam", mean=0.9125)],
        "pairs": [pair()],
        "conditions": [],
    }
    return ResultView.model_validate(fields | changes)


def unequal(field: str, words: str, **values: int) -> UnequalField:
    listed = [UnequalValueView(value=value, runs=runs, of=[]) for value, runs in values.items()]
    return UnequalField(field=field, words=words, values=listed)
