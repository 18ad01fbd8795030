"""The pixels of an image file as a viewer shows them: eight bits a channel, RGB, over white, upright."""

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

SIDEWAYS = frozenset((5, 6, 7, 8))
"""Orientations of EXIF whose width is the height that a viewer shows."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF 2.3, tag 0x0112: from the orientation to what makes the image upright."""
_RANGELESS = {"I": "32-bit integers", "F": "floating-point numbers"}
"""Modes of Pillow whose white is any number: a picture may be of 0 to 1, of 0 to 4095, or of heights in metres."""
_WHITE_IS_ZERO = 0


class UnknownRange(Exception):
    """The file does not say which numbers are black and white."""


def orientation_of(file: ImageFile) -> int:
    """EXIF's orientation of an image whose pixels are not loaded, 1 to 8; 1 where EXIF is absent or damaged.

    Pillow turns a TIFF itself, and gives its size as it will be: it counts as upright. A PNG is decoded here, as its
    EXIF may lie behind the pixels: its size must be checked before. Raises what Pillow raises for a damaged file.
    """
    if file.format == "TIFF":
        return 1
    if file.format == "PNG":
        file.load()
    try:
        orientation = file.getexif().get(Base.Orientation, 1)
    except Exception:  # any, by the nature of the damage; the pixels may be sound
        return 1
    return orientation if orientation in _TURNS else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned as EXIF's orientation says."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def to_rgb(file: ImageFile) -> Image.Image:
    """All pixels of the file, in Pillow's mode RGB.

    Of 16 bits a channel the upper eight are kept, of grey as Pillow does of colour; transparent pixels are laid over
    white; palettes and CMYK are converted, without colour profiles. Raises UnknownRange for modes I and F, and
    what Pillow raises for a damaged file.
    """
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format in {"PNG", "PPM"}):
        return _eight_bits(file).convert("RGB")
    if file.mode in _RANGELESS:
        raise UnknownRange(
            f"its pixels are {_RANGELESS[file.mode]} (Pillow's mode {file.mode}), of which nobody knows what is white; "
            "save it with 8 or 16 bits a channel"
        )
    return _over_white(file) if file.has_transparency_data else file.convert("RGB")


def _eight_bits(file: ImageFile) -> Image.Image:
    """The upper eight of 16 bits of grey; a PNM of more than 8 bits arrives scaled to 16."""
    tags = getattr(file, "tag_v2", {})
    bits = tags.get(BITSPERSAMPLE, (16,))[0]
    is_negative = tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    transparent = file.info.get("transparency")
    values = np.asarray(file)
    grey = np.empty(values.shape, np.uint8)
    np.right_shift(values, bits - 8, out=grey, casting="unsafe")  # with no copy between
    if is_negative:
        np.subtract(255, grey, out=grey)
    if isinstance(transparent, int):  # a PNG's one value that stands for nothing
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _over_white(file: ImageFile) -> Image.Image:
    image = file if file.mode == "RGBA" else file.convert("RGBA")
    if image.getextrema()[-1] == (255, 255):
        return image.convert("RGB")
    over = Image.new("RGB", image.size, "white")
    over.paste(image, mask=image)
    return over
