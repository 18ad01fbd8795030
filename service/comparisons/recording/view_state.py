"""The saved view of a comparison: what MLflow's page of an experiment shows when it is opened by its link.

MLflow 3.17 keeps a shared view in a tag of its experiment, `mlflow.sharedViewState.KEY`, as the JSON of its page's
state, which may be deflated (its own share button does that). `viewStateShareKey=KEY` in the address opens it.
"""

import base64
import json
import zlib
from typing import Any

TAG = "mlflow.sharedViewState."
SUMMARY_TAG = "cbam.summary_of"
"""What the summary runs of a comparison are found by: its id."""
LOW, HIGH = " low", " high"
"""How the ends of a band are named behind the metric; a slash would make a section of charts of each."""
_SECTION = "comparison"
_LINES = ("val/top1", "train/loss", "val/loss")
_PLAIN_COLUMNS = ("params.`model.attention.type`", "params.`model.backbone`", "params.`train.seed`")


def view_key(study_id: str) -> str:
    """The key of the saved view of a comparison."""
    return f"cbam-{study_id}"


def view_state(study_id: str, metric: str) -> str:
    """The value of the tag: summary runs alone, one line with its band for each variant, and what they cost."""
    state = {
        "searchFilter": f"tags.`{SUMMARY_TAG}` = '{study_id}'",
        "orderByKey": f"metrics.`{metric}`",  # by date, MLflow would hide them below their parent run
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*_metric_columns(metric), *_PLAIN_COLUMNS],
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "groupBy": None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "compareRunSections": [_section()],
        "compareRunCharts": [*map(_line, _LINES), _bar(metric), _bar("parameters"), _bar("images_per_second")],
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return f"deflate;{packed}"


def _metric_columns(metric: str) -> list[str]:
    names = dict.fromkeys((metric, "test/top1", "val/top1", "parameters", "images_per_second"))
    return [f"metrics.`{name}`" for name in names]


def _section() -> dict[str, Any]:
    kept = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    return {"uuid": _SECTION, "name": "Variants over their seeds"} | kept


def _chart(kind: str, metric: str) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"{_SECTION}-{kind}-{metric}",
        "metricSectionId": _SECTION,
        "runsCountToCompare": 20,
        "deleted": False,
        "isGenerated": False,
        "displayName": metric,
        "metricKey": metric,
    }


def _line(metric: str) -> dict[str, Any]:
    return _chart("LINE", metric) | {
        "selectedMetricKeys": [metric, metric + LOW, metric + HIGH],
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "useGlobalXaxisKey": False,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "useGlobalLineSmoothing": False,
        "lineSmoothness": 0,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "displayPoints": False,
        "ignoreOutliers": False,
    }


def _bar(metric: str) -> dict[str, Any]:
    return _chart("BAR", metric)
