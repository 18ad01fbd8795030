"""The picture and the table of a confusion matrix: of many classes too, and never in the way of what comes after."""

import csv
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image

from workers.tracking import confusion_matrix
from workers.tracking.confusion_matrix import confusion_artifacts, top_confusions
from workers.tracking.figures import confusion_matrix_png


def matrix(classes):
    """Ten images of each class, of which a few are taken for the next classes."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    for number in range(classes):
        counts[number, number] = 10
        counts[number, (number + 1) % classes] = number % 5
    return counts, [f"class {number}" for number in range(classes)]


def written(folder, classes):
    counts, names = matrix(classes)
    path = folder / "confusion_matrix.json"
    path.write_text(json.dumps({"counts": counts.tolist(), "classes": names}))
    return path


@pytest.mark.parametrize(("classes", "files"), [(60, []), (61, ["top_confusions.csv"])])
def test_a_table_comes_with_a_picture_that_has_no_names(tmp_path, classes, files):
    made = confusion_artifacts(written(tmp_path, classes))
    assert [path.name for path in made] == [*files, "confusion_matrix.png"]
    assert all(path.stat().st_size for path in made)


def test_the_table_names_what_is_mistaken_most_first():
    counts = np.array([[8, 2, 0], [3, 1, 1], [0, 2, 2]])
    rows = list(csv.DictReader(io.StringIO(top_confusions(counts, ["a cat", "=dog, or not", "c"]))))
    assert [(row["true_class"], row["predicted_class"], row["images"]) for row in rows] == [
        ("=dog, or not", "a cat", "3"),
        ("c", "=dog, or not", "2"),
        ("a cat", "=dog, or not", "2"),
        ("=dog, or not", "c", "1"),
    ]
    assert rows[0]["share_of_true_class"] == "0.6"


@pytest.mark.parametrize("classes", [1200, 3000, 10_000])
def test_thousands_of_classes_are_drawn_soon_and_small(classes):
    counts, names = matrix(classes)
    began = time.monotonic()
    picture, table = confusion_matrix_png(counts, names), top_confusions(counts, names)
    assert time.monotonic() - began < 30, "3,000 took 95 s once"
    with Image.open(io.BytesIO(picture)) as image:
        assert max(image.size) <= 1700
    assert len(table.splitlines()) == 1 + min(confusion_matrix.MOST_CONFUSIONS, classes * 4 // 5)


def test_what_takes_too_long_is_left_out(tmp_path, monkeypatch, caplog):
    forever = threading.Event()
    monkeypatch.setattr(confusion_matrix, "DRAW_SECONDS", 0.2)
    monkeypatch.setattr(confusion_matrix, "confusion_matrix_png", lambda *_matrix: forever.wait(60) and b"")
    try:
        assert [path.name for path in confusion_artifacts(written(tmp_path, 100))] == ["top_confusions.csv"]
    finally:
        forever.set()
    assert "confusion_matrix.png is left out: it is not drawn within" in caplog.text


def test_what_fails_is_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(confusion_matrix, "confusion_matrix_png", lambda *_matrix: 1 / 0)
    assert confusion_artifacts(written(tmp_path, 3)) == []
    assert "confusion_matrix.png is left out: ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("content", [None, "", "{", '{"counts": [[1, 2], [3]], "classes": ["a", "b"]}'])
def test_a_matrix_that_cannot_be_read_holds_up_nothing(tmp_path, content, caplog):
    if content is not None:
        (tmp_path / "confusion_matrix.json").write_text(content)
    assert confusion_artifacts(tmp_path / "confusion_matrix.json") == []
    assert "the confusion matrix is left out" in caplog.text
