"""Pictures for the reviewer, drawn without a display and safely in any thread."""

import io
from collections.abc import Sequence

_MOST_LABELS = 40


def confusion_matrix_png(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """The confusion matrix as a PNG: rows are true classes, colours the share of the row, numbers the images."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side = min(12.0, 2.5 + 0.45 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right = sum(row[index] for index, row in enumerate(counts))
    axes.set_title(f"{right} of {sum(map(sum, counts))} images right")
    if len(classes) <= _MOST_LABELS:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        for row, values in enumerate(counts):
            for column, count in enumerate(values):
                if count:
                    colour = "white" if shares[row][column] > 0.5 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
