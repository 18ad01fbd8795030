"""Which run of MLflow is an experiment's: storage keeps its id, and no tag that a user may write says it.

Before a run is made, a word that nobody knows is written to the experiment's folder, and goes to MLflow with the run:
by it, the run is found where the answer to its creation got lost. Two storages that use one MLflow never meet.
"""

import json
import logging
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from workers.protocol.storage import ExperimentFolder, write_atomically, write_once
from workers.tracking.journal import Journal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)
EXPERIMENT_TAG = "cbam.experiment_id"
CREATION_TAG = "cbam.creation"
IDENTITY_TAGS = (EXPERIMENT_TAG, CREATION_TAG)  # given with the creation of a run, and never again


@dataclass(frozen=True)
class KnownRun:
    """What storage knows of the run: the word that it is made with, where it is made, and its id once that is known."""

    creation: str = ""
    project_id: str = ""
    run_id: str | None = None


def read_run(folder: ExperimentFolder) -> KnownRun | None:
    """None where nobody has tried to make one, or its file says nothing."""
    try:
        known = KnownRun(**json.loads(folder.mlflow_run.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        logger.warning("%s says nothing of a run: %s", folder.mlflow_run, error)
        return None
    return known if all(isinstance(text, str) for text in (known.creation, known.run_id or "")) else None


def stored_run_id(folder: ExperimentFolder) -> str | None:
    """The id of the experiment's run, once storage knows it."""
    known = read_run(folder)
    return known.run_id if known else None


def begin(folder: ExperimentFolder) -> None:
    """Note, before anything else is told of a new experiment, that no run made without its word is its own."""
    write_once(folder.mlflow_run, json.dumps(asdict(KnownRun(secrets.token_hex(16)))), parents=False)


class RunIdentity:
    """Finds the run of one experiment, or makes it."""

    def __init__(self, folder: ExperimentFolder, journal: Journal, *, project: str, run_name: str) -> None:
        self._folder, self._journal = folder, journal
        self._project, self._run_name = project, run_name
        self._began_here = journal.is_new

    def ensure(self, client: "MlflowClient") -> "Run":
        """The run, which goes on. One that was deleted is restored; in place of one that is gone, or that cannot be
        told from another's, comes a new one, which the journal is sent to from its start.
        """
        known = read_run(self._folder)
        if known is None and self._began_here:
            known = self._write(KnownRun(secrets.token_hex(16)))  # also where MLflow is away: no tag is asked later
        found = self._find(client, known)
        if found is not None:
            if known is None or known.run_id is None:
                self._write(KnownRun(known.creation if known else "", found.info.experiment_id, found.info.run_id))
            return _go_on(client, found)
        return self._create(client, known)

    def _find(self, client: "MlflowClient", known: KnownRun | None) -> "Run | None":
        if known is None:
            return find_old_run(client, self._project, self._folder.experiment_id)
        if known.run_id is not None:
            return _get(client, known.run_id)
        return _find_created(client, known) if known.project_id else None

    def _create(self, client: "MlflowClient", known: KnownRun | None) -> "Run":
        project_id = ensure_project(client, self._project)
        creation = known.creation if known is not None and known.run_id is None else secrets.token_hex(16)
        self._write(KnownRun(creation, project_id))
        if self._journal.sent:
            logger.warning("MLflow has no run of this experiment any more; a new one is told everything")
            self._journal.rewind()
        tags = {EXPERIMENT_TAG: self._folder.experiment_id, CREATION_TAG: creation}
        run = client.create_run(project_id, tags=tags, run_name=self._run_name)
        self._write(KnownRun(creation, project_id, run.info.run_id))
        return run

    def _write(self, known: KnownRun) -> KnownRun:
        write_atomically(self._folder.mlflow_run, json.dumps(asdict(known)), parents=False)
        return known


def find_old_run(client: "MlflowClient", project: str, experiment_id: str) -> "Run | None":
    """The run of an experiment that began before run ids were kept, by its tag; None where more than one has it.

    Such a run was made without a word, and until then users could give the tag to theirs.
    """
    experiment = client.get_experiment_by_name(project)
    if experiment is None:
        return None
    of_it = f"tags.`{EXPERIMENT_TAG}` = '{experiment_id}'"
    runs = [run for run in client.search_runs([experiment.experiment_id], of_it) if CREATION_TAG not in run.data.tags]
    if len(runs) > 1:
        logger.warning("%d runs of MLflow say that they are experiment %s: none is taken", len(runs), experiment_id)
    return runs[0] if len(runs) == 1 else None


def _find_created(client: "MlflowClient", known: KnownRun) -> "Run | None":
    """The run that was made, though its maker never learnt its id."""
    made = f"tags.`{CREATION_TAG}` = '{known.creation}'"
    runs = client.search_runs([known.project_id], made, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0] if runs else None


def _get(client: "MlflowClient", run_id: str) -> "Run | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _go_on(client: "MlflowClient", run: "Run") -> "Run":
    if run.info.lifecycle_stage == "deleted":
        client.restore_run(run.info.run_id)
        if client.get_experiment(run.info.experiment_id).lifecycle_stage == "deleted":
            client.restore_experiment(run.info.experiment_id)
    client.update_run(run.info.run_id, status="RUNNING")
    return run


def ensure_project(client: "MlflowClient", name: str) -> str:
    """The id of MLflow's experiment of this name, made or restored where it has to be."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return str(client.create_experiment(name))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)
