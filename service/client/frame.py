"""Experiments as a pandas DataFrame: one row each, one column for each metric. pandas is imported on use alone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service.client.errors import NeedsPandas
from service.domain.filters import facets_of
from service.schemas.experiments import ExperimentView

if TYPE_CHECKING:
    import pandas

BEFORE = ("id", "name", "project", "state", "attention", "backbone", "dataset", "seed")
COSTS = ("parameters", "macs", "images_per_second", "wall_seconds")
AFTER = (*COSTS, "created_at", "tags")
INTEGERS = ("seed", "parameters", "macs")  # as Int64, which has a missing value


def to_frame(views: Sequence[ExperimentView]) -> "pandas.DataFrame":
    """One row for each experiment, in their order; a metric that one of them lacks is NaN there.

    Columns: `BEFORE`, the last value of every metric by its name (`test/top1`), `AFTER`. The costs are those of the
    summary, known once an experiment has ended well; before that `images_per_second` is the last that was measured.
    `created_at` is in UTC, `tags` holds dicts. Raises NeedsPandas.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise NeedsPandas from error
    rows = [_row(view) for view in views]
    metrics = sorted({name for view in views for name in view.metrics} - {*BEFORE, *AFTER})
    frame = pandas.DataFrame(rows, columns=[*BEFORE, *metrics, *AFTER])
    floats = (*metrics, "images_per_second", "wall_seconds")
    kinds = dict.fromkeys(INTEGERS, "Int64") | dict.fromkeys(floats, "float64")
    frame = frame.astype(kinds)
    frame["created_at"] = pandas.to_datetime(frame["created_at"], utc=True)
    return frame


def _row(view: ExperimentView) -> Mapping[str, Any]:
    """The metrics, and over them what else is known of the experiment."""
    costs = {name: value for name in COSTS if (value := view.summary.get(name)) is not None}
    own = {name: getattr(view, name) for name in ("id", "name", "project", "created_at", "tags")}
    return {**view.metrics, **costs, **own, "state": str(view.state), **recipe_of(view)}


def recipe_of(view: ExperimentView) -> dict[str, Any]:
    """Attention, backbone, dataset and seed of an experiment, as far as its spec is there."""
    train = view.spec.get("train")
    seed = train.get("seed") if isinstance(train, Mapping) else None
    return {"attention": None, "backbone": None, "dataset": None} | facets_of(view.spec) | {"seed": seed}
