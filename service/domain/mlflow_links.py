"""Links into MLflow's pages, each of which opens the training pages in a browser that has never seen MLflow.

MLflow 3.17 opens in its GenAI mode unless the address says otherwise. Its page of a run by id alone (`#/runs/ID`) sends
the browser on and drops what the address said, so a link to a run names MLflow's experiment too.
"""

from urllib.parse import quote, urlencode

TRAINING = {"workflowType": "machine_learning"}


def home_link(base: str) -> str:
    """The list of MLflow's experiments. `base` is where people reach MLflow."""
    return _page(base, "experiments")


def experiment_link(base: str, experiment_id: str) -> str:
    """The runs of an MLflow experiment, which is one of our projects."""
    return _page(base, "experiments", experiment_id, "runs")


def run_link(base: str, run_id: str, experiment_id: str | None) -> str:
    """The page of a run. Without MLflow's experiment, as of runs of before 0.2, it opens in the GenAI mode."""
    if experiment_id is None:
        return _page(base, "runs", run_id)
    return _page(base, "experiments", experiment_id, "runs", run_id)


def view_link(base: str, experiment_id: str, key: str) -> str:
    """The charts of an MLflow experiment as the shared view of this key has them."""
    return _page(base, "experiments", experiment_id, "runs", viewStateShareKey=key, compareRunsMode="CHART")


def _page(base: str, *parts: str, **query: str) -> str:
    path = "/".join(quote(part, safe="") for part in parts)
    return f"{base.rstrip('/')}/#/{path}?{urlencode(query | TRAINING)}"
