"""What a training has logged, read from its journal: every value is there as long as no MLflow has taken it."""

import json

from workers.protocol.storage import ExperimentFolder

MLFLOW_AWAY = "http://127.0.0.1:9"  # nobody listens there: every value that is logged stays in the journal
MEASURES_TIME = ("system/", "images_per_second", "data_wait_share")


def logged(folder: ExperimentFolder) -> dict[tuple[str, int], float]:
    """Every value that went to MLflow, but those that measure time."""
    values = {}
    for line in folder.journal.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        record = json.loads(line)
        for name, value in record.get("metrics", {}).items():
            if not name.startswith(MEASURES_TIME):
                assert (name, record["step"]) not in values, "every value is logged once"
                values[name, record["step"]] = value
    return values
