"""Tells MLflow of comparisons. Whatever it does may be cut off anywhere and done again: nothing is there twice.

A run is made with the word that its row has kept since before there was any run, and is found by it where the answer to
its creation got lost. Where two processes make one at once, the row takes one of them, and the other one is deleted.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cbam_core.errors import SpecError
from service.comparisons.figure import figure
from service.comparisons.recording.content import (
    Places,
    curve_metrics,
    description,
    final_metrics,
    parent_tags,
    summarised_seeds,
    summary_name,
    summary_tags,
)
from service.comparisons.recording.curves import read_bands
from service.comparisons.recording.rows import StudyRunRows, Untold
from service.comparisons.recording.view_state import TAG, view_key, view_state
from service.comparisons.report import EXPERIMENTS, html, markdown
from service.comparisons.result import result_of
from service.database.models.studies import Study, StudyRun
from service.domain.mlflow_links import run_link, view_link
from service.domain.pruning import PruneScope
from service.domain.studies import STUDY_TERMINAL, StudyState
from service.schemas.comparison_results import ResultView, VariantResultView
from service.studies.store import StudyStore, TrialRow
from workers.protocol.storage import ExperimentFolder
from workers.tracking.mlflow_client import BATCH_LIMITS, artifacts_at, flatten
from workers.tracking.run_identity import CREATION_TAG, ensure_project

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)
RUN_STATUS = {StudyState.SUCCEEDED: "FINISHED", StudyState.FAILED: "FAILED", StudyState.CANCELLED: "KILLED"}
PRIMARY_METRIC = "mlflow.experiment.primaryMetric.name"
NOTE, PARENT, NAME = "mlflow.note.content", "mlflow.parentRunId", "mlflow.runName"
GONE = "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True)
class Target:
    """Where things are: MLflow and storage as this process reaches them, MLflow and the API as people do."""

    tracking_uri: str
    storage: Path
    mlflow_url: str | None = None
    api_url: str | None = None


class Recorder:
    """Tells one MLflow of the comparisons of one database. Raises what MLflow raises while it is away."""

    def __init__(self, client: "MlflowClient", rows: StudyRunRows, studies: StudyStore, target: Target) -> None:
        self.client, self.rows, self.studies, self.target = client, rows, studies, target

    def tell(self, of: Untold) -> None:
        """Have MLflow's runs of a comparison say what its rows say. `of` was read before."""
        trials = self.studies.trials(of.study_id)
        study = self.studies.get(of.study_id)
        try:
            view = result_of(study, trials)
        except SpecError as error:  # it stays so
            log.warning("nothing is told of it: %s", error, extra={"study_id": study.id})
            self.rows.ensure(study.id)
            self.rows.note_told(of)
            return
        self._require_storage(trials)
        row = self.rows.ensure(study.id)
        parent = self._parent(study, row)
        row = self.rows.ensure(study.id)
        if study.chosen is None:  # runs that were there before it are below what they were made for
            self._link_children(row, parent.info.run_id, trials)
        summaries = self._summaries(study, row, view, parent)
        self._describe(study, view, parent, summaries)
        self._save_view(study, view, parent.info.experiment_id)
        self._set_status(study, parent)
        self.rows.note_told(of)

    def _require_storage(self, trials: Sequence[TrialRow]) -> None:
        """Raise FileNotFoundError where runs have no folder that should have one: curves are told once."""
        kept = (one.experiment for one in trials if one.trial.observed_at is not None and one.experiment is not None)
        for folder in (ExperimentFolder(self.target.storage, row.id) for row in kept if row.pruned != PruneScope.ALL):
            if not folder.path.is_dir():
                raise FileNotFoundError(f"there is no {folder.path}: is the storage mounted?")

    def tell_of_deletion(self, study_id: str) -> None:
        """Say in the parent run that its comparison is no more in the service, and forget it: the runs stay."""
        row = self.rows.get(study_id)
        run = None if row is None or row.run_id is None else self._get(row.run_id)
        if run is not None and run.info.lifecycle_stage == "active":
            self.client.set_tag(run.info.run_id, "cbam.state", "deleted from the service")
            if run.info.status == "RUNNING":
                self.client.set_terminated(run.info.run_id, "KILLED")
        self.rows.forget(study_id)

    def _parent(self, study: Study, row: StudyRun) -> "Run":
        """The parent run, made or restored where it has to be."""
        if row.run_id is not None and (run := self._get(row.run_id)) is not None:
            return self._restored(run)
        creation = row.creation if row.run_id is None else f"{row.creation}-{row.run_id[:8]}"  # that one is gone
        run = self._made(ensure_project(self.client, study.project), creation, study.name, _milliseconds(study))
        run_id, project_id = str(run.info.run_id), str(run.info.experiment_id)
        if self.rows.note_run(study.id, instead_of=row.run_id, run_id=run_id, experiment_id=project_id):
            return run
        now = self.rows.ensure(study.id).run_id  # another process was faster
        if now != run_id:
            self.client.delete_run(run_id)
        other = None if now is None else self._get(now)
        if other is None:
            raise RuntimeError("the parent run is made by another process just now")
        return other

    def _made(
        self, project_id: str, creation: str, name: str, began: int, tags: Mapping[str, str] | None = None
    ) -> "Run":
        """The run with this word: one that was made before, or a new one."""
        made = f"tags.`{CREATION_TAG}` = '{creation}'"
        found = self.client.search_runs([project_id], made, order_by=["attributes.start_time ASC"])
        for double in found[1:]:
            self.client.delete_run(double.info.run_id)
        if found:
            return found[0]
        return self.client.create_run(project_id, began, {**(tags or {}), CREATION_TAG: creation}, name)

    def _get(self, run_id: str) -> "Run | None":
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != GONE:
                raise
            return None

    def _restored(self, run: "Run") -> "Run":
        if run.info.lifecycle_stage == "deleted":
            self.client.restore_run(run.info.run_id)
            if self.client.get_experiment(run.info.experiment_id).lifecycle_stage == "deleted":
                self.client.restore_experiment(run.info.experiment_id)
        return run

    def _link_children(self, row: StudyRun, parent_id: str, trials: Sequence[TrialRow]) -> None:
        """Have the runs of seeds name the parent run. They are made by workers, before or after it."""
        from mlflow.exceptions import MlflowException

        linked = set(row.linked)
        runs = [one.experiment.mlflow_run_id for one in trials if one.experiment and one.experiment.mlflow_run_id]
        for run_id in runs:
            if run_id in linked:
                continue
            try:
                self.client.set_tag(run_id, PARENT, parent_id)
            except MlflowException as error:
                if error.error_code not in (GONE, "INVALID_PARAMETER_VALUE"):  # deleted in MLflow: not ours to change
                    raise
                log.warning("a run cannot be put below its comparison: %s", error, extra={"study_id": row.study_id})
            linked.add(run_id)
        if linked != set(row.linked):
            self.rows.note_linked(row.study_id, sorted(linked))

    def _summaries(self, study: Study, row: StudyRun, view: ResultView, parent: "Run") -> dict[str, Any]:
        """The summary run of each variant by its name; none while the comparison hides its means."""
        seeds = _summarised(study, view)
        if view.hidden or not seeds:
            return {}
        known = dict(row.summaries)
        for variant in view.variants:
            of, tags = _digest(seeds, variant), summary_tags(view, variant, study.owner) | {PARENT: parent.info.run_id}
            old = known.get(variant.name)
            if old is not None and old["of"] == of and (run := self._get(old["run"])) is not None:
                self._restored(run)
                self.client.log_batch(old["run"], tags=_run_tags(tags))
                continue
            run_id = self._summarise(study, view, variant, parent, creation=f"{row.creation}-{of}", tags=tags)
            known[variant.name] = {"run": run_id, "of": of}
            self.rows.note_summaries(study.id, known)
            if old is not None and old["run"] != run_id and self._get(old["run"]) is not None:
                self.client.delete_run(old["run"])
        return known

    def _summarise(
        self,
        study: Study,
        view: ResultView,
        variant: VariantResultView,
        parent: "Run",
        *,
        creation: str,
        tags: Mapping[str, str],
    ) -> str:
        """Make the summary run of a variant, or complete one that was begun. Its values have fixed times: each comes
        once, however often it is sent.
        """
        from mlflow.entities import Metric, Param

        seeds, began = _summarised(study, view), _milliseconds(study)
        counted = [run.experiment_id for run in variant.runs if run.counted][:seeds]
        bands = read_bands(self.target.storage, counted)
        name = summary_name(variant.name, seeds)
        run = self._made(parent.info.experiment_id, creation, name, began, tags)
        run_id = str(run.info.run_id)
        self.client.log_batch(run_id, tags=_run_tags(tags))  # it may be of a parent run that is no more
        curves = curve_metrics(bands)
        last = max((step for *_, step in curves), default=0)
        values = [*curves, *((key, value, last) for key, value in final_metrics(view, variant, seeds).items())]
        metrics = [Metric(key, value, began + step, step) for key, value, step in values]
        params = flatten(study.specs[variant.name]) | {"train.seed": f"mean of {seeds}"}
        pairs = [Param(key, value) for key, value in params.items() if key not in ("name", "description")]
        for start in range(0, len(pairs), BATCH_LIMITS["params"]):
            self.client.log_batch(run_id, params=pairs[start : start + BATCH_LIMITS["params"]])
        for start in range(0, len(metrics), BATCH_LIMITS["metrics"]):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH_LIMITS["metrics"]])
        self.client.set_terminated(run_id, "FINISHED")
        return run_id

    def _describe(self, study: Study, view: ResultView, parent: "Run", summaries: Mapping[str, Any]) -> None:
        run_id, project_id, url = str(parent.info.run_id), str(parent.info.experiment_id), self.target.mlflow_url
        pages = {name: run_link(url, one["run"], project_id) for name, one in summaries.items()} if url else {}
        charts = view_link(url, project_id, view_key(study.id)) if url and summaries else None
        with TemporaryDirectory() as folder:
            for name, text in self._artifacts(view, charts).items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            artifacts_at(parent.info.artifact_uri, self.target.tracking_uri).log_artifacts(folder)
        note = description(view, Places(charts, self.target.api_url, pages))
        tags = parent_tags(view, study.owner) | {NOTE: note, NAME: study.name}
        self.client.log_batch(run_id, tags=_run_tags(tags))

    def _artifacts(self, view: ResultView, charts: str | None) -> dict[str, str]:
        experiments = f"{(self.target.api_url or '').rstrip('/')}{EXPERIMENTS}"
        svg = figure(view)
        return {
            "comparison.json": view.model_dump_json(indent=2),
            "comparison.svg": svg,
            "report.html": html(view, svg, experiments=experiments, mlflow=charts),
            "report.md": markdown(view, experiments=experiments, mlflow=charts),
        }

    def _save_view(self, study: Study, view: ResultView, project_id: str) -> None:
        """Save the view in MLflow's experiment, and the metric that it is about, unless a user has chosen one."""
        tags = self.client.get_experiment(project_id).tags
        wanted = {TAG + view_key(study.id): view_state(study.id, view.metric)}
        if PRIMARY_METRIC not in tags:
            wanted[PRIMARY_METRIC] = view.metric
        for name, value in wanted.items():
            if tags.get(name) != value:
                self.client.set_experiment_tag(project_id, name, value)

    def _set_status(self, study: Study, parent: "Run") -> None:
        status = RUN_STATUS.get(StudyState(study.state), "RUNNING")
        if status == "RUNNING":
            self.client.update_run(parent.info.run_id, status)
        elif parent.info.status != status:
            ended = None if study.ended_at is None else _at(study.ended_at)
            self.client.set_terminated(parent.info.run_id, status, ended)


def _summarised(study: Study, view: ResultView) -> int:
    return summarised_seeds(view.seeds.finished, is_over=study.state in STUDY_TERMINAL)


def _digest(seeds: int, variant: VariantResultView) -> str:
    """What a summary run is of: another seed, or another number reached, makes another run."""
    counted = [(run.experiment_id, run.correct, run.diverged) for run in variant.runs if run.counted][:seeds]
    return hashlib.sha256(json.dumps([variant.name, counted]).encode()).hexdigest()[:16]


def _run_tags(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in tags.items()]


def _milliseconds(study: Study) -> int:
    return _at(study.created_at)


def _at(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
