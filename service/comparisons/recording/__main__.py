"""`python -m service.comparisons.recording` tells MLflow of the comparisons that it has not heard of as they are now.

A process of its own: MLflow may be slow or away, and to read the curves of a large comparison takes seconds, for which
the dispatcher cannot wait. It reads where things are from the first line of its input, as addresses may hold passwords.
It ends when all is told, with 1 where something could not be; and with whoever has started it, when the input ends: the
next dispatcher starts its own.
"""

import json
import logging
import os
import sys
import threading
from functools import partial
from pathlib import Path

from service.comparisons.recording.recorder import Recorder, Target
from service.comparisons.recording.rows import StudyRunRows
from service.database.engine import Database
from service.redaction import redact
from service.studies.store import StudyStore
from workers.tracking.mlflow_client import one_line, set_environment

log = logging.getLogger("service.comparisons.recording")


def tell_all(recorder: Recorder) -> int:
    """Tell of each comparison for itself; how many could not be told. Leaves off where MLflow does not answer."""
    failed = 0
    jobs = [(of.study_id, partial(recorder.tell, of)) for of in recorder.rows.untold()]
    jobs += [(gone, partial(recorder.tell_of_deletion, gone)) for gone in recorder.rows.deleted()]
    for study_id, job in jobs:
        try:
            job()
        except Exception as error:  # whatever is wrong with one is no other's
            log.warning("MLflow has not heard of comparison %s: %s", study_id, redact(one_line(error)))
            failed += 1
            if is_away(error):
                break  # else each would find that out for itself, for half a minute
    return failed


def is_away(error: Exception) -> bool:
    """Whether MLflow did not answer, or could not; else it refused what it was asked for."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> int:
    """Tell what is untold."""
    told = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING)
    set_environment()
    os.nice(5)  # trainings come first
    from mlflow import MlflowClient

    target = Target(told["tracking_uri"], Path(told["storage"]), told["mlflow_url"], told["api_url"])
    database = Database(told["database_url"])
    try:
        recorder = Recorder(MlflowClient(target.tracking_uri), StudyRunRows(database), StudyStore(database), target)
        return int(bool(tell_all(recorder)))
    finally:
        database.close()


if __name__ == "__main__":
    raise SystemExit(main())
