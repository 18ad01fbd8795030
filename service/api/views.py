"""Views of rows: what the API answers of an experiment."""

from service.database.models.experiments import Experiment
from service.domain.mlflow_links import run_link
from service.domain.pruning import PruneScope, allowed_actions
from service.domain.states import State
from service.schemas.experiments import ExperimentView, FilesView, Links, ProgressView
from service.settings import Settings

_MADE_HERE = {"probe", "spec", "state", "actions", "progress", "metrics", "files", "links", "warnings"}


def experiment_view(row: Experiment, settings: Settings, *, with_spec: bool = True) -> ExperimentView:
    """The view of a row, which need not have a spec where none is to be shown."""
    path = f"/v1/experiments/{row.id}"
    base, run_id = settings.mlflow_public_url, row.mlflow_run_id
    state = State(row.state)
    return ExperimentView(
        **{name: getattr(row, name) for name in ExperimentView.model_fields if name not in _MADE_HERE},
        probe=row.probed_against is not None,
        spec=row.spec if with_spec and isinstance(row.spec, dict) else {},  # else it was damaged by hand
        state=state,
        actions=allowed_actions(state, pruned=row.pruned is not None),
        progress=ProgressView.model_validate(row.progress),
        metrics={key: value for key, value in row.progress.get("metrics", {}).items() if value is not None},
        files=FilesView(
            bytes=row.disk_bytes,
            checkpoint_bytes=row.checkpoint_bytes,
            measured_at=row.disk_measured_at,
            pruned=None if row.pruned is None else PruneScope(row.pruned),
            pruned_at=row.pruned_at,
        ),
        links=Links(
            self=path,
            logs=f"{path}/logs",
            events=f"{path}/events",
            metrics=f"{path}/metrics",
            mlflow=run_link(base, run_id, row.mlflow_experiment_id) if base and run_id else None,
        ),
    )
