"""Sends what the journals of ended experiments still hold, for when MLflow was away until their end.

`python -m workers.tracking.replay STORAGE EXPERIMENT…`, to MLFLOW_TRACKING_URI: a process of its own, because the model
of a finished training takes torch, which the dispatcher does not load.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cbam_core.printable import escaped_line
from cbam_core.spec import read_spec
from workers.protocol.fence import newest_attempt
from workers.protocol.storage import ExperimentFolder
from workers.tracking.journal import has_pending
from workers.tracking.mlflow_sender import Sender


def is_waiting(folder: ExperimentFolder) -> bool:
    """Whether the journal holds what MLflow has not heard."""
    return has_pending(folder.journal)


def replay(folder: ExperimentFolder, uri: str) -> None:
    """Send what the journal still holds. Leaves off where another attempt begins meanwhile.

    Raises what MLflow raises while it is away.
    """
    spec, newest = read_spec(folder.spec), newest_attempt(folder)
    sender = Sender(folder, uri, run_name=spec.name, project=spec.project)
    sender.send(lambda: newest_attempt(folder) == newest)


def main(arguments: Sequence[str]) -> int:
    """Replay the journals that the arguments name, each for itself; 1 where one of them could not be sent."""
    storage, *experiment_ids = arguments
    failed = 0
    for experiment_id in experiment_ids:
        try:
            replay(ExperimentFolder(Path(storage), experiment_id), os.environ["MLFLOW_TRACKING_URI"])
        except Exception as error:  # whatever is wrong with one journal is no other's
            print(f"{experiment_id} cannot be replayed: {escaped_line(str(error))}", file=sys.stderr, flush=True)
            failed = 1
    return failed


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
