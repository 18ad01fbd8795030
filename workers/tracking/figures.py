"""Pictures for the reviewer, drawn by matplotlib without a display, safely in any thread.

matplotlib takes 0.4 s of CPU to import, so that is left to the first picture. pyplot keeps global state: not used.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Counts = npt.NDArray[np.int64]

MOST_NAMED_CLASSES = 60
_DPI = 100
_MOST_CHARACTERS = 32  # of the name of a class
_LARGEST_CELL, _SMALLEST_CELL, _WANTED_SIDE = 60, 24, 600  # pixels
_PIXELS_SIDE = 1000  # pixels, about, of a matrix without names
_MOST_CELLS = 1500  # a side; of more classes neighbours share one: 3,000 took 4 s and a gigabyte
_DIGIT_WIDTHS = {10: 8.9, 8: 7.1, 7: 6.2}  # points of the font to pixels of a digit


def confusion_matrix_png(counts: Sequence[Sequence[int]] | Counts, classes: Sequence[str]) -> bytes:
    """Draw a confusion matrix as a PNG; see `confusion_figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    png = io.BytesIO()
    FigureCanvasAgg(confusion_figure(counts, classes)).print_png(png)  # savefig would draw everything twice
    return png.getvalue()


def confusion_figure(counts: Sequence[Sequence[int]] | Counts, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: rows are true classes, colours the share of the row.

    Up to 60 classes have their names, and each cell its number of images. Of more, each cell is a square of pixels, and
    the axes number the classes from 0; the colours then follow the cube root, or one image in fifty would be white. Of
    more than 1,500, neighbouring classes share a cell.
    """
    images = np.asarray(counts)
    figure = _named(images, classes) if len(classes) <= MOST_NAMED_CLASSES else _pixels(images)
    right, total = int(images.trace()), int(images.sum())
    axes = figure.axes[0]
    axes.set_title(f"{right} of {total} images right ({right / max(1, total):.1%})", fontsize=11)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure


def _named(images: Counts, classes: Sequence[str]) -> Figure:
    """A cell for each pair of classes, with its count; the figure is as large as cells and names need."""
    from matplotlib.figure import Figure

    shares = images / np.maximum(1, images.sum(1, keepdims=True))
    digits = len(str(images.max()))
    cell = max(_SMALLEST_CELL, _DIGIT_WIDTHS[7] * digits + 6, min(_LARGEST_CELL, _WANTED_SIDE / len(classes)))
    names = [name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 1]}…" for name in classes]
    side = max(cell * len(names), 240)
    margin = 90 + 7 * max(map(len, names))  # pixels
    figure = Figure(figsize=((side + margin + 110) / _DPI, (side + margin) / _DPI), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, shrink=0.6, label="share of the true class")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    points = next((size for size, width in _DIGIT_WIDTHS.items() if width * digits + 6 <= cell), 7)
    for row, column in np.argwhere(images):
        colour = "white" if shares[row, column] > 0.5 else "black"
        count = axes.text(
            *(column, row, str(images[row, column])), color=colour, fontsize=points, ha="center", va="center"
        )
        count.set_in_layout(False)  # it lies within the axes, and a thousand take 0.3 s to lay out
    return figure


def _pixels(images: Counts) -> Figure:
    """A square of the same whole number of pixels for each pair of classes, or of as many neighbours as share one."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    classes = len(images)
    starts = np.arange(0, classes, -(-classes // _MOST_CELLS))
    cells = np.add.reduceat(np.add.reduceat(images, starts, 0), starts, 1)
    shares = cells / np.maximum(1, cells.sum(1, keepdims=True))
    side = max(1, _PIXELS_SIDE // len(shares)) * len(shares)
    left, below, right, above = 80, 60, 120, 40  # pixels
    width, height = left + side + right, below + side + above
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    axes = figure.add_axes((left / width, below / height, side / width, side / height))
    edges = (-0.5, classes - 0.5, classes - 0.5, -0.5)
    drawn = axes.imshow(
        shares, cmap="Blues", norm=PowerNorm(1 / 3, 0, 1), interpolation="nearest", aspect="auto", extent=edges
    )
    bar = figure.add_axes(((left + side + 20) / width, (below + side / 4) / height, 20 / width, side / 2 / height))
    figure.colorbar(drawn, cax=bar, label="share of the true class", ticks=(0, 0.01, 0.1, 0.2, 0.5, 1))
    return figure
