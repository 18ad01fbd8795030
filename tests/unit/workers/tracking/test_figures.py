"""The picture of the confusion matrix: what it shows, that it can be read, and what it loads."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from workers.tracking.figures import confusion_figure, confusion_matrix_png

NAMES = ("cat", "the long name of a class that has no end", "$x_1$", "Ελλάδα")


def matrix(classes: int, per_class: int) -> tuple[list[list[int]], list[str]]:
    """Some images of each class, most of them right, and the names."""
    draw = np.random.default_rng(0)
    chances = 0.6 * np.eye(classes) + 0.4 * draw.dirichlet(np.full(classes, 0.05), classes)
    counts = [draw.multinomial(per_class, row / row.sum()).tolist() for row in chances]
    return counts, [f"{NAMES[index % 4]} {index}" if classes > 4 else NAMES[index] for index in range(classes)]


def drawn(counts, names):
    """The figure with its layout done, and its axes."""
    figure = confusion_figure(counts, names)
    FigureCanvasAgg(figure).draw()
    return figure, figure.axes[0]


@pytest.mark.parametrize(("classes", "per_class"), [(2, 7), (10, 1000), (60, 50)])
def test_every_class_has_its_name_and_every_cell_its_count(classes, per_class):
    counts, names = matrix(classes, per_class)
    _, axes = drawn(counts, names)
    shown = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert shown == {(row, column): str(counts[row][column]) for row, column in np.argwhere(counts)}
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        texts = [label.get_text() for label in labels]
        assert all(name.startswith(text.rstrip("…")) for name, text in zip(names, texts, strict=True))
        assert len({*texts}) > 1
    right = sum(counts[index][index] for index in range(classes))
    assert axes.get_title().startswith(f"{right} of {classes * per_class} images right")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


@pytest.mark.parametrize(("classes", "per_class"), [(2, 7), (10, 1000), (10, 9_999_999), (60, 50), (60, 100_000)])
def test_no_text_covers_another_or_leaves_its_place(classes, per_class):
    figure, axes = drawn(*matrix(classes, per_class))
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        boxes = [label.get_window_extent() for label in labels]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    for text in axes.texts:
        column, row = text.get_position()
        (left, below), (right, above) = axes.transData.transform([(column - 0.5, row + 0.5), (column + 0.5, row - 0.5)])
        box = text.get_window_extent()
        assert left <= box.x0 <= box.x1 <= right, text.get_text()
        assert below <= box.y0 <= box.y1 <= above
    texts = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.xaxis.label, axes.yaxis.label]
    assert all(figure.bbox.contains(*corner) for text in texts for corner in text.get_window_extent().corners())


@pytest.mark.parametrize("classes", [61, 300, 1000, 1500])
def test_of_more_classes_each_cell_is_a_square_of_pixels_in_the_colour_of_its_share(classes):
    counts, names = matrix(classes, 50)
    figure, axes = drawn(counts, names)
    assert not axes.texts
    pixels = np.asarray(Image.open(io.BytesIO(confusion_matrix_png(counts, names))).convert("RGB"))
    assert pixels.shape[1::-1] == tuple(figure.bbox.size)
    box, cell = axes.get_window_extent(), max(1, 1000 // classes)
    left, top = round(box.x0), pixels.shape[0] - round(box.y1)
    inside = pixels[top : top + cell * classes, left : left + cell * classes]
    blocks = inside.reshape(classes, cell, classes, cell, 3).swapaxes(1, 2)
    if cell > 4:  # of small cells the frame of the axes takes the first
        blocks = blocks[:, :, 2:-2, 2:-2]
    blocks = blocks[2:-2, 2:-2].astype(int)
    assert (blocks == blocks[:, :, :1, :1]).all()
    expected = colormaps["Blues"](np.cbrt(np.array(counts)[2:-2, 2:-2] / 50), bytes=True)[..., :3].astype(int)
    assert abs(blocks[:, :, 0, 0] - expected).max() <= 2


def test_a_class_without_images_is_no_error():
    figure, _ = drawn([[0, 0], [0, 0]], ["a", "b"])
    assert figure.axes[0].get_title() == "0 of 0 images right (0.0%)"


def test_threads_may_draw_at_once():
    cases = [matrix(10, per_class) for per_class in (10, 20, 30, 40)]
    alone = [confusion_matrix_png(*case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda case: confusion_matrix_png(*case), cases)) == alone


def test_what_trains_does_not_load_matplotlib_before_there_is_a_picture_and_never_pyplot():
    code = (
        "import sys, workers.attempt, workers.tracking.mlflow_tracker\nassert 'matplotlib' not in sys.modules\n"
        "from workers.tracking.figures import confusion_matrix_png\nconfusion_matrix_png([[1]], ['a'])\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
