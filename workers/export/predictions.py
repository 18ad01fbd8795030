"""What a trained network says of every image of val and test, as one Parquet file."""

import io
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from workers.protocol.storage import ExperimentFolder, write_atomically

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictionRows:
    """The images of one part, N of each, on the CPU.

    split        val, test, or test_best: what the best checkpoint's weights say of test
    index        where the image stands in the part of the dataset that it was read from
    path         its file below the dataset's root; None for images of no files
    group        what `data.val.group` finds in its path; None without groups, or where it finds nothing
    label        the number of its class; the file's metadata have the names
    predicted    the number of the class with the largest score
    top5         the five largest, best first: N K
    probability  of the right class
    loss         cross-entropy in nats
    """

    split: str
    index: Tensor
    path: Sequence[str] | None
    group: Sequence[str | None] | None
    label: Tensor
    predicted: Tensor
    top5: Tensor
    probability: Tensor
    loss: Tensor


def write_predictions(folder: ExperimentFolder, parts: Sequence[PredictionRows], classes: Sequence[str]) -> None:
    """One row per image and part; nothing where there is no part. Left out, with a warning, without pyarrow."""
    if not parts:
        return
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        logger.warning("the predictions of single images are left out: pyarrow is not installed")
        return
    table = pa.concat_tables([_table(rows) for rows in parts])
    table = table.replace_schema_metadata({"classes": json.dumps(list(classes))})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    write_atomically(folder.predictions, file.getvalue(), parents=False)


def _table(rows: PredictionRows) -> Any:
    import pyarrow as pa

    count = len(rows.label)
    top5 = pa.FixedSizeListArray.from_arrays(pa.array(rows.top5.flatten().int().numpy()), rows.top5.shape[1])
    return pa.table({
        "split": pa.array([rows.split] * count, pa.string()),
        "index": pa.array(rows.index.numpy()),
        "path": pa.array([None] * count if rows.path is None else [_text(path) for path in rows.path], pa.string()),
        "group": pa.array([None] * count if rows.group is None else rows.group, pa.string()),
        "label": pa.array(rows.label.int().numpy()),
        "predicted": pa.array(rows.predicted.int().numpy()),
        "top5": top5.cast(pa.list_(pa.int32())),
        "probability": pa.array(rows.probability.numpy()),
        "loss": pa.array(rows.loss.numpy()),
    })  # fmt: skip


def _text(path: str) -> str:
    """A file's name may be any bytes; what is no UTF-8 of it is shown as \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
