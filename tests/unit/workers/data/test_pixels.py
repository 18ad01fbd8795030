"""Images as a viewer shows them, whatever their file holds: more bits, alpha, palettes, an orientation."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from cbam_core.data_roots import ANYWHERE
from cbam_core.errors import DataError
from workers.data.datasets import decoding
from workers.data.datasets.decoding import decode

SIDE = 64
RAMP = np.tile(np.linspace(0, 1, SIDE), (SIDE, 1))
"""Black on the left, white on the right."""
GREY = (RAMP * 255).round().astype(np.uint8)
DEEP = (RAMP * 65535).round().astype(np.uint16)


def seen(path, size=SIDE, crop=None):
    """H W 3 of int"""
    return decode(path, size, crop, roots=ANYWHERE).transpose(1, 2, 0).astype(int)


def is_ramp(pixels, *, within=1):
    return np.abs(pixels - GREY[..., None].astype(int)).max() <= within


def write_tiff(path, values, *, photometric, bits=16):
    """A TIFF of one grey strip, as Pillow writes none: 12 bits a value, or white at 0."""
    height, width = values.shape
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(np.uint32)
        packed = pairs[:, 0] << 12 | pairs[:, 1]
        strip = np.stack([packed >> 16, packed >> 8, packed], 1).astype(np.uint8).tobytes()
    else:
        strip = values.astype("<u2").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 200), (277, 1), (278, height)]
    tags.append((279, len(strip)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(head.ljust(200, b"\0") + strip)


DEEP_FILES = {
    "16.png": lambda path: Image.fromarray(DEEP).save(path),
    "16.tif": lambda path: Image.fromarray(DEEP).save(path),
    "16-lzw.tif": lambda path: Image.fromarray(DEEP).save(path, compression="tiff_lzw"),
    "16-big-endian.tif": lambda path: Image.fromarray(DEEP.astype(">u2")).save(path),
    "16-white-is-zero.tif": lambda path: write_tiff(path, 65535 - DEEP, photometric=0),
    "12.tif": lambda path: write_tiff(path, DEEP >> 4, photometric=1, bits=12),
    "16.pgm": lambda path: Image.fromarray(DEEP).save(path),
    "10.pgm": lambda path: path.write_bytes(b"P5 64 64 1023\n" + (DEEP >> 6).astype(">u2").tobytes()),
}


@pytest.mark.parametrize("name", DEEP_FILES)
def test_more_than_eight_bits_are_scaled_to_eight(tmp_path, name):
    DEEP_FILES[name](tmp_path / name)
    assert is_ramp(seen(tmp_path / name))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_and_colour_of_sixteen_bits_are_scaled_alike(tmp_path, suffix):
    """Pillow writes no colour of 16 bits, so a PNG is put together here; TIFF's grey stands for both."""
    Image.fromarray(DEEP).save(tmp_path / f"grey.{suffix}")

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in DEEP)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "colour.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert np.array_equal(seen(tmp_path / f"grey.{suffix}"), seen(tmp_path / "colour.png"))


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("float.tif", Image.fromarray(RAMP.astype(np.float32)), "floating-point numbers .*mode F"),
        ("integers.tif", Image.fromarray(DEEP.astype(np.int32)), "32-bit integers .*mode I"),
    ],
)
def test_pixels_whose_white_is_unknown_are_refused_by_name(tmp_path, name, image, words):
    image.save(tmp_path / name)
    with pytest.raises(DataError, match=f"cannot read .*{name}: its pixels are {words}.*8 or 16 bits"):
        seen(tmp_path / name)


def test_a_portable_float_map_is_refused_by_name(tmp_path):
    (tmp_path / "map.ppm").write_bytes(b"Pf 64 64 -1.0\n" + RAMP.astype("<f4").tobytes())
    with pytest.raises(DataError, match=r"map\.ppm: its pixels are floating-point"):
        seen(tmp_path / "map.ppm")


def glyph():
    """A black stroke on nothing, whose transparent pixels are black as well, as drawing programs leave them."""
    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (24, 0, 40, SIDE))
    return image


GLYPHS = {
    "rgba.png": (glyph(), {}),
    "rgba.webp": (glyph(), {"lossless": True}),
    "rgba.tif": (glyph(), {}),
    "grey.png": (glyph().convert("LA"), {}),
    "palette.png": (glyph().quantize(16), {}),
    "key-of-grey.png": (Image.fromarray(GREY), {"transparency": 0}),
    "key-of-colour.png": (Image.fromarray(GREY).convert("RGB"), {"transparency": (0, 0, 0)}),
    "key-of-16-bits.png": (Image.fromarray(DEEP), {"transparency": 0}),
    "key-of-one-bit.png": (Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE), {"transparency": 0}),
    "palette.gif": (glyph(), {}),
}


@pytest.mark.parametrize("name", GLYPHS)
def test_what_is_transparent_is_white(tmp_path, name):
    image, options = GLYPHS[name]
    image.save(tmp_path / name, **options)
    pixels = seen(tmp_path / name)
    assert (pixels[:, 0] == 255).all()
    if not name.startswith("key"):
        assert (pixels[:, 32] == 0).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_half_transparent_is_mixed_with_white(tmp_path, mode):
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(256, size=(SIDE, SIDE, 4), dtype=np.uint8)).convert(mode)
    image.save(tmp_path / "mixed.png")
    values = np.asarray(image).astype(float)
    share = values[..., -1:] / 255
    expected = (values[..., :-1] * share + 255 * (1 - share)).repeat(3 if mode == "LA" else 1, -1)
    assert np.abs(seen(tmp_path / "mixed.png") - expected).max() <= 1


def test_an_opaque_alpha_changes_nothing(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(80, 90, 3), dtype=np.uint8))
    image.save(tmp_path / "without.png")
    image.putalpha(255)
    image.save(tmp_path / "with.png")
    assert np.array_equal(seen(tmp_path / "with.png"), seen(tmp_path / "without.png"))


CONVERTED = {
    "cmyk.jpg": (Image.fromarray(GREY).convert("RGB").convert("CMYK"), {"quality": 98}, 4),
    "cmyk.tif": (Image.fromarray(GREY).convert("RGB").convert("CMYK"), {}, 1),
    "lab.tif": (Image.fromarray(GREY).convert("RGB").convert("LAB"), {}, 2),
    "ycbcr.tif": (Image.fromarray(GREY).convert("RGB").convert("YCbCr"), {}, 2),
    "palette.png": (Image.fromarray(GREY).convert("P"), {}, 0),
    "palette.gif": (Image.fromarray(GREY).convert("P"), {}, 0),
    "grey.jpg": (Image.fromarray(GREY), {"quality": 98}, 4),
    "grey.jfif": (Image.fromarray(GREY), {"quality": 98, "format": "JPEG"}, 4),
    "grey.pgm": (Image.fromarray(GREY), {}, 0),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_other_colours_are_converted(tmp_path, name):
    image, options, within = CONVERTED[name]
    image.save(tmp_path / name, **options)
    assert is_ramp(seen(tmp_path / name), within=within)


@pytest.mark.parametrize("name", ["1.png", "1.tif", "1.pbm", "1.bmp"])
def test_an_image_of_one_bit_is_black_and_white(tmp_path, name):
    Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE).save(tmp_path / name)
    assert np.array_equal(seen(tmp_path / name), (GREY[..., None] >= 128) * np.full(3, 255))


COLOURS = np.random.default_rng(0).integers(256, size=(5, 3, 3), dtype=np.uint8)
"""15 tiles, all different: no orientation leaves them as they are."""
UPRIGHT = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}
"""By EXIF 2.3: where row 0 and column 0 of the file are on the screen."""
OPTIONS = {"jpg": {"quality": 100, "subsampling": 0}, "png": {}, "webp": {"lossless": True}, "tif": {}}


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("suffix", OPTIONS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("crop", [None, (0.3, 0.6, 0.2, 0.9)])
def test_a_photograph_is_upright_before_it_is_cut(tmp_path, suffix, orientation, crop):
    tiles = COLOURS.repeat(100, 0).repeat(100, 1)
    Image.fromarray(tiles).save(tmp_path / f"turned.{suffix}", exif=exif(orientation), **OPTIONS[suffix])
    Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](tiles))).save(tmp_path / "upright.png")
    part = None if crop is None else torch.tensor(crop)
    ours, expected = (seen(tmp_path / name, 40, part) for name in (f"turned.{suffix}", "upright.png"))
    assert np.abs(ours - expected).mean() < (4 if suffix == "jpg" else 1e-9)


def test_the_orientation_behind_the_pixels_of_a_png_counts(tmp_path):
    """As ExifTool writes it."""
    image = Image.fromarray(COLOURS.repeat(20, 0).repeat(20, 1))
    image.save(tmp_path / "upright.png")
    data = (tmp_path / "upright.png").read_bytes()
    tags = exif(3).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(tags)) + b"eXIf" + tags + struct.pack(">I", zlib.crc32(b"eXIf" + tags))
    (tmp_path / "turned.png").write_bytes(data[:-12] + chunk + data[-12:])
    assert np.array_equal(seen(tmp_path / "turned.png", 60), seen(tmp_path / "upright.png", 60)[::-1, ::-1])


def test_an_orientation_in_xmp_counts(tmp_path):
    image, info = Image.fromarray(COLOURS.repeat(20, 0).repeat(20, 1)), PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="3"/>')
    image.save(tmp_path / "turned.png", pnginfo=info)
    image.save(tmp_path / "upright.png")
    assert np.array_equal(seen(tmp_path / "turned.png", 60), seen(tmp_path / "upright.png", 60)[::-1, ::-1])


@pytest.mark.parametrize(
    "tags",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0no TIFF",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        exif(0).tobytes(),
        exif(9).tobytes(),
        exif(65535).tobytes(),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_leaves_an_image_as_it_is(tmp_path, suffix, tags):
    image = Image.fromarray(COLOURS.repeat(20, 0).repeat(20, 1))
    image.save(tmp_path / f"damaged.{suffix}", exif=tags, **OPTIONS[suffix])
    image.save(tmp_path / f"sound.{suffix}", **OPTIONS[suffix])
    assert np.array_equal(seen(tmp_path / f"damaged.{suffix}"), seen(tmp_path / f"sound.{suffix}"))


@pytest.mark.parametrize(("orientation", "stored", "decoded"), [
    (1, (4096, 2048), (1024, 512)),
    (6, (2048, 4096), (512, 1024)),
])  # fmt: skip
def test_a_turned_part_is_decoded_at_the_scale_that_it_wants(tmp_path, monkeypatch, orientation, stored, decoded):
    """For 128 pixels of an eighth of the width and a quarter of the height, a quarter of the scale is enough."""
    Image.new("RGB", stored, "red").save(tmp_path / "large.jpg", exif=exif(orientation))
    sizes = []
    monkeypatch.setattr(decoding, "_part", lambda _, aspect: (0.0, 0.0, 0.125, 0.25) if aspect == 2 else None)
    monkeypatch.setattr(decoding, "upright", lambda image, _: sizes.append(image.size) or image)
    seen(tmp_path / "large.jpg", 128, torch.zeros(4))
    assert sizes == [decoded]


def test_a_photograph_with_more_images_behind_it_is_decoded_at_a_smaller_scale(tmp_path, monkeypatch):
    """Phones store a gain map, or a second view, behind the first; Pillow calls it MPO."""
    first, second = Image.new("RGB", (2048, 2048), "red"), Image.new("RGB", (64, 64), "blue")
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    monkeypatch.setattr(decoding, "MOST_PIXELS", 2**20)
    assert (seen(tmp_path / "phone.jpg")[..., 0] > 250).all()
