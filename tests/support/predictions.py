"""A file of predictions as a training leaves it, with as many right as the test says."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

IMAGES, CLASSES = 40, 10


def write_predictions(path: Path, *, correct: int, images: int = IMAGES, part: str = "test") -> None:
    """The first `correct` of the part's images are right, and none of the others; val has as many, all wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.arange(images) % CLASSES
    predicted = np.where(np.arange(images) < correct, label, (label + 1) % CLASSES)
    other = "val" if part != "val" else "test"
    splits = [part] * images + [other] * images
    table = pa.table({
        "split": pa.array(splits, pa.string()),
        "index": pa.array(np.tile(np.arange(images), 2)),
        "path": pa.array([None] * 2 * images, pa.string()),
        "label": pa.array(np.tile(label, 2).astype("int32")),
        "predicted": pa.array(np.concatenate([predicted, (label + 1) % CLASSES]).astype("int32")),
    })  # fmt: skip
    classes = [f"class {number}" for number in range(CLASSES)]
    pq.write_table(table.replace_schema_metadata({"classes": json.dumps(classes)}), path)
