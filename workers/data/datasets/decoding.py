"""From a file to the pixels that enter the network, with memory bounded whatever the file says that it holds."""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from workers.data.augment.geometry import part_of
from workers.data.datasets.pixels import SIDEWAYS, UnknownRange, orientation_of, to_rgb, upright

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""By their content, whatever the name ends with: folders from the web have GIFs named .jpg. All are decoded by
libraries in this process; Pillow would also hand PostScript to Ghostscript."""
MOST_PIXELS = 2**26
"""Of an image as it is decoded: 8192 × 8192: 256 MiB a core, several times that in some formats. Cameras of the
usual format have up to 61 million; Pillow's own limit is 179 million."""
MOST_JPEG_PIXELS = 2**27
"""A JPEG may be larger, as it is decoded at a smaller scale; one that is stored in several passes is all unpacked
first, by 6 bytes a pixel at most."""
_JPEG = ("JPEG", "MPO")
"""A photograph of a phone that has more images behind the first is read as MPO, and decoded like any JPEG."""
LONGEST = 16
"""Longer sides to shorter ones: of longer images no more is scaled than is wanted."""
_MARGIN = 2
"""Pixels beyond those whose weight in a bilinear filter is not zero."""
Part = tuple[float, float, float, float]
"""Left, top, width and height, as shares of the image's sides."""
_UNREADABLE = (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError)


def decode(
    path: Path, image_size: int, crop: Tensor | None = None, *, crop_pct: float = 1.0, roots: DataRoots
) -> np.ndarray:
    """uint8 3 H W: the shorter side scaled to image_size, then the middle; or the part that `crop` (4) draws, scaled.

    With `crop_pct` the shorter side is scaled to ⌊image_size / crop_pct⌋ before the middle is cut out, as timm does:
    224 / 0.875 = 256 pixels are the usual test on ImageNet. It says nothing to a `crop`.
    All of this is of the image as a viewer shows it, upright and over white (`pixels.py`). A JPEG is decoded at the
    smallest scale that still has the pixels that are wanted. Raises DataError, also for more pixels than MOST_PIXELS
    and for pixels without a range.
    """
    try:
        with roots.open(path) as opened:
            return decode_open(opened, image_size, crop, crop_pct=crop_pct, name=str(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}; delete it, or copy it again") from error


def decode_open(
    opened: BinaryIO, image_size: int, crop: Tensor | None = None, *, crop_pct: float = 1.0, name: str
) -> np.ndarray:
    """The same of an open file, or of bytes as one; errors call it `name`."""
    shorter = math.floor(image_size / crop_pct)
    part, wanted = None, (shorter, shorter)
    try:
        with Image.open(opened, formats=FORMATS) as file:
            _check_size(file, MOST_JPEG_PIXELS if file.format in _JPEG else MOST_PIXELS)
            orientation = orientation_of(file)
            if crop is not None:
                part = _part(crop, file.height / file.width if orientation in SIDEWAYS else file.width / file.height)
                wanted = (math.ceil(image_size / part[2]), math.ceil(image_size / part[3]))
            file.draft("RGB", wanted[::-1] if orientation in SIDEWAYS else wanted)
            _check_size(file, MOST_PIXELS)
            image = upright(to_rgb(file), orientation)
    except UnknownRange as error:
        raise DataError(f"cannot read {name}: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"cannot read {name}: it is no {', '.join(FORMATS)}; delete it, or copy it again") from error
    except _UNREADABLE as error:
        raise DataError(f"cannot read {name}: {error}; delete it, or copy it again") from error
    square = _middle(image, image_size, shorter) if part is None else _scaled_part(image, part, image_size)
    return np.asarray(square).transpose(2, 0, 1).copy()


def _check_size(file: ImageFile, most: int) -> None:
    if file.width * file.height > most:
        raise ValueError(f"{file.width} × {file.height} pixels are more than the {most:,} that are decoded")


def _part(crop: Tensor, aspect: float) -> Part:
    left, top, width, height = (float(share) for share in part_of(crop[None], aspect))
    return left, top, width, height


def _scaled_part(image: Image.Image, part: Part, image_size: int) -> Image.Image:
    left, top, width, height = (round(share * side) for share, side in zip(part, image.size * 2, strict=True))
    piece = image.crop((left, top, left + max(1, width), top + max(1, height)))
    return piece.resize((image_size, image_size), Image.Resampling.BILINEAR)


def _middle(image: Image.Image, image_size: int, shorter: int) -> Image.Image:
    """The middle of what scales the shorter side to `shorter`.

    All is scaled, and then cut, but for very long images: 1 × 60000 pixels would become 224 × 13 million. Of these the
    part is scaled alone. Its borders are rounded to 32 bits, so some values differ by 1, of noise up to 2 in 255.
    """
    scale = shorter / min(image.size)
    width, height = (max(shorter, round(side * scale)) for side in image.size)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    if max(image.size) > LONGEST * min(image.size):
        return _scaled_middle(image, image_size, (left, top), (width, height))
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    return scaled.crop((left, top, left + image_size, top + image_size))


def _scaled_middle(
    image: Image.Image, image_size: int, corner: tuple[int, int], scaled: tuple[int, int]
) -> Image.Image:
    """What lies at `corner` of the image were it of the size `scaled`, from the pixels around it alone."""
    spans, kept = [], []
    for start, length, side in zip(corner, scaled, image.size, strict=True):
        first, last = start * side / length, (start + image_size) * side / length
        reach = math.ceil(max(1.0, side / length)) + _MARGIN
        spans.append((first, last))
        kept.append((max(0, math.floor(first) - reach), min(side, math.ceil(last) + reach)))
    (left, right), (top, bottom) = kept
    (first_x, last_x), (first_y, last_y) = spans
    box = (first_x - left, first_y - top, min(last_x - left, right - left), min(last_y - top, bottom - top))
    piece = image.crop((left, top, right, bottom))
    return piece.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
