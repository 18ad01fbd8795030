"""What MLflow gets of a confusion matrix: a picture, and of many classes the pairs that are mistaken most, as a table.

Neither may hold up what is told after them: what takes too long, or fails, is left out with a warning.
"""

import csv
import io
import json
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from workers.protocol.storage import write_atomically
from workers.tracking.figures import MOST_NAMED_CLASSES, confusion_matrix_png

logger = logging.getLogger(__name__)
DRAW_SECONDS = 60.0
MOST_CONFUSIONS = 1000
"""So many rows of the table."""


def confusion_artifacts(path: Path) -> list[Path]:
    """The files made of the counts in `path`, beside it, as far as they could be made. Raises nothing."""
    try:
        matrix = json.loads(path.read_text(encoding="utf-8"))
        counts, classes = np.asarray(matrix["counts"]), matrix["classes"]
    except Exception as error:
        logger.warning("the confusion matrix is left out: %s: %s", type(error).__name__, error)
        return []
    makers: dict[Path, Callable[[], bytes | str]] = {}
    if len(classes) > MOST_NAMED_CLASSES:
        makers[path.with_name(f"{path.stem.replace('confusion_matrix', 'top_confusions')}.csv")] = lambda: (
            top_confusions(counts, classes)
        )
    makers[path.with_suffix(".png")] = lambda: confusion_matrix_png(counts, classes)
    return [place for place, make in makers.items() if _made(place, make)]


def top_confusions(counts: np.ndarray, classes: Sequence[str]) -> str:
    """As CSV: the pairs of classes mistaken most, by images and then by their share of the true class."""
    totals = counts.sum(1)
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    rows, columns = np.nonzero(wrong)
    images = wrong[rows, columns]
    shares = images / totals[rows]
    order = np.lexsort((columns, rows, -shares, -images))[:MOST_CONFUSIONS]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("true_class", "predicted_class", "images", "share_of_true_class"))
    for row, column, count, share in zip(rows[order], columns[order], images[order], shares[order], strict=True):
        table.writerow((classes[row], classes[column], int(count), f"{share:.4g}"))
    return text.getvalue()


def _made(place: Path, make: Callable[[], bytes | str]) -> bool:
    """Whether the file was written within DRAW_SECONDS. One that takes longer is left to itself, and not waited for."""
    done: list[bytes | str] = []

    def run() -> None:
        try:
            done.append(make())
        except Exception as error:
            logger.warning("%s is left out: %s: %s", place.name, type(error).__name__, error)

    thread = threading.Thread(target=run, name=f"draw {place.name}", daemon=True)
    thread.start()
    thread.join(DRAW_SECONDS)
    if thread.is_alive():
        logger.warning("%s is left out: it is not drawn within %.0f s", place.name, DRAW_SECONDS)
        return False
    if not done:
        return False
    try:
        write_atomically(place, done[0], parents=False)
    except OSError as error:
        logger.warning("%s is left out: %s", place.name, error)
        return False
    return True
