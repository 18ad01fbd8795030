"""Pictures for the reviewer, drawn without a display, safely in any thread, and in milliseconds."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_MOST_LABELS = 40
_FONT_SIZE, _CELL, _GAP = 13, 48, 8  # pixels
_LARGEST = 1200
_BLUE = (8, 48, 107)

Colour = tuple[int, int, int]


def confusion_matrix_png(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """The confusion matrix as a PNG: rows are true classes, colours the share of the row, numbers the images."""
    names = list(classes) if len(classes) <= _MOST_LABELS else []
    cell = _CELL if names else max(1, _LARGEST // len(classes))
    font = ImageFont.load_default(_FONT_SIZE)
    line = sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else _FONT_SIZE
    longest = round(max((font.getlength(name) for name in names), default=0))
    left, top = longest + line + 3 * _GAP, longest + 2 * line + 4 * _GAP
    side = cell * len(classes)
    picture = Image.new("RGB", (left + side + _GAP, top + side + _GAP), "white")
    draw = ImageDraw.Draw(picture)
    right = sum(row[index] for index, row in enumerate(counts))
    draw.text((left, _GAP), f"{right} of {sum(map(sum, counts))} images right; predicted across", "black", font)
    _write_upwards(picture, "true", (_GAP, top + side // 2), font)
    for index, name in enumerate(names):
        middle = cell * index + cell // 2
        draw.text((left - _GAP, top + middle), name, "black", font, anchor="rm")
        _write_upwards(picture, name, (left + middle - line // 2, top - _GAP), font)
    for row, values in enumerate(counts):
        for column, count in enumerate(values):
            x, y, share = left + cell * column, top + cell * row, count / max(1, sum(values))
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=_shade(share))
            if names and count:
                colour = "white" if share > 0.5 else "black"
                draw.text((x + cell // 2, y + cell // 2), str(count), colour, font, anchor="mm")
    png = io.BytesIO()
    picture.save(png, format="png")
    return png.getvalue()


def _shade(share: float) -> Colour:
    """White for none to dark blue for all."""
    red, green, blue = (round(255 + (dark - 255) * share) for dark in _BLUE)
    return red, green, blue


def _write_upwards(
    picture: Image.Image, text: str, foot: tuple[int, int], font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    """Write from the bottom up, beginning at `foot`, the lower left corner."""
    _left, _top, right, bottom = font.getbbox(text)
    word = Image.new("RGB", (max(1, round(right)), max(1, round(bottom))), "white")
    ImageDraw.Draw(word).text((0, 0), text, "black", font)
    turned = word.rotate(90, expand=True)
    picture.paste(turned, (foot[0], foot[1] - turned.height))
