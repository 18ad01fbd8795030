"""Write metrics and facts of a run into the experiment's journal."""

import logging
import time
from collections.abc import Mapping

from cbam_core.errors import CheckpointError
from cbam_core.tags import reserved
from workers.protocol.assignment import Assignment
from workers.protocol.fence import Fence
from workers.protocol.outcome import Outcome
from workers.tracking.journal import Journal
from workers.tracking.mlflow_client import BATCH_LIMITS, flatten
from workers.tracking.provenance import provenance
from workers.tracking.run_identity import begin
from workers.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

DESCRIPTION_TAG = "mlflow.note.content"  # what MLflow shows as the run's description, in Markdown


class JournalTracker(Tracker):
    """Writes all to the experiment's journal, at once: the service shows its curves, with and without an MLflow."""

    def __init__(self, assignment: Assignment) -> None:
        self._spec = assignment.spec
        self._folder = assignment.folder
        self._journal = Journal(assignment.folder.journal)
        self._fence = Fence(assignment)
        if self._journal.is_new:
            begin(self._folder)
            self._journal.append({"artifact": str(self._folder.spec)})  # a call of its own: what follows goes in one
            params = list(flatten(self._spec.model_dump(mode="json")).items())
            most = BATCH_LIMITS["params"]
            for start in range(0, len(params), most):
                self._journal.append({"params": dict(params[start : start + most])})
        ours = reserved(self._spec.tags)  # a spec may have been stored before they were refused
        if ours:
            logger.warning("tags of the spec that are not the user's to give are left out: %s", ", ".join(ours))
        theirs = {name: value for name, value in self._spec.tags.items() if name not in ours}
        self.tag(theirs | provenance() | {"cbam.attempt": str(assignment.attempt)})
        if self._spec.description:
            self.tag({DESCRIPTION_TAG: self._spec.description})

    def tag(self, tags: Mapping[str, str]) -> None:
        """Facts about the run."""
        self._journal.append({"tags": dict(tags)})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Values measured at `step`. Raises Superseded where another attempt writes the journal."""
        self._fence.check_now_and_then()
        self._journal.append_metrics(step, metrics, time.time_ns() // 1_000_000)

    def sync(self) -> None:
        """Have what was logged outlast the loss of this machine. Raises CheckpointError where storage fails."""
        try:
            self._journal.sync()
        except OSError as error:
            raise CheckpointError(f"cannot write the journal: {error}") from error

    def close(self, outcome: Outcome) -> bool:
        """Write no more."""
        try:
            self._journal.sync()
        except OSError as error:
            logger.warning("the end of the journal would not outlast the loss of this machine: %s", error)
        self._journal.close()
        return super().close(outcome)
