"""Decoding: the same pixels as ever from ordinary images, and little memory for any."""

import gzip
import io
import json
import math
import pickle
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from cbam_core.data_roots import ANYWHERE
from cbam_core.errors import DataError
from cbam_core.spec import DataSpec
from tests.unit.workers.data.test_datasets import make_cifar
from workers.data import load_dataset
from workers.data.datasets import decoding, fashion_mnist
from workers.data.datasets.decoding import FORMATS, LONGEST, decode

PEAK = """
import json, re, sys, torch
from pathlib import Path
from cbam_core.data_roots import ANYWHERE
from workers.data.datasets.decoding import decode
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
before, said = peak(), []
for path, crop, crop_pct in json.loads(sys.argv[1]):
    try:
        decode(Path(path), 224, crop and torch.tensor(crop), crop_pct=crop_pct, roots=ANYWHERE)
    except Exception as error:
        said.append(f"{type(error).__name__} {error}")
print(json.dumps((peak() - before, said)))
"""
WHOLE = (None, 1.0)


def peak_of(*images):
    """MiB that decoding these takes at its most, in a process that ends above 12 GiB, and what it says."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))

    images = [(str(path), crop, crop_pct) for path, crop, crop_pct in images]
    command = [sys.executable, "-c", PEAK, json.dumps(images)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, preexec_fn=limit)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def write_png(path, width, height, *, pixels=True, bits=8, channels=1):
    """A PNG of so many black pixels in a few kilobytes; or one that only says that it has them."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + width * channels * bits // 8)
    data = b"".join(packer.compress(row) for _ in range(height if pixels else 1)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 4: 6}[channels], 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def test_a_long_thin_image_takes_the_memory_of_what_it_becomes(tmp_path):
    images = []
    for width, height in [(1, 60_000), (60_000, 1), (3, 1_000_000)]:
        path = write_png(tmp_path / f"{width}.png", width, height)
        assert path.stat().st_size < 20_000
        images += [(path, None, 0.875), (path, *WHOLE), (path, [0.5] * 4, 1.0), (path, [1.0, 0.0, 1.0, 1.0], 1.0)]
    peak, said = peak_of(*images)
    assert said == []
    assert peak < 64


def test_more_pixels_than_are_decoded_are_refused_before_they_are(tmp_path):
    sizes = [(13_000, 13_000), (2**13, 2**13 + 1), (1, 2**26 + 1)]
    peak, said = peak_of(*((write_png(tmp_path / f"{size[0]}.png", *size, pixels=False), *WHOLE) for size in sizes))
    for (width, height), message in zip(sizes, said, strict=True):
        assert message.startswith(f"DataError cannot read {tmp_path}/{width}.png: {width} × {height} pixels are more")
    assert peak < 32


@pytest.mark.parametrize(("bits", "channels"), [(16, 1), (8, 4)])
def test_more_bits_and_alpha_take_little_more_than_the_pixels(tmp_path, bits, channels):
    """256 MiB for what is decoded and as much for the image over white; of 16 bits, a copy of 128."""
    path = write_png(tmp_path / "large.png", 2**13, 2**13, bits=bits, channels=channels)
    peak, said = peak_of((path, *WHOLE))
    assert said == []
    assert peak < 600


def write_webp(path):
    """The header of a lossless WebP of 16383 × 16383 pixels, and nothing else."""
    bits = 0x2F | (16382 << 8) | (16382 << 22)
    body = b"VP8L" + struct.pack("<I", 6) + struct.pack("<Q", bits)[:5] + b"\0"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)


def write_jpeg(path, side, **options):
    """A JPEG that says it has side × side pixels, and holds fewer."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    at = data.index(b"\xff\xc2" if options else b"\xff\xc0") + 5
    path.write_bytes(data[:at] + struct.pack(">HH", side, side) + data[at + 4 :])


def test_every_other_format_is_bounded_too(tmp_path):
    write_webp(tmp_path / "bomb.webp")
    write_jpeg(tmp_path / "bomb.jpg", 12_000)
    (tmp_path / "bomb.ppm").write_bytes(b"P6 20000 20000 255\n")
    header = struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54)
    (tmp_path / "bomb.bmp").write_bytes(header + struct.pack("<IiiHHIIiiII", 40, 20000, 20000, 1, 24, 0, 0, 0, 0, 0, 0))
    names = ("bomb.webp", "bomb.jpg", "bomb.ppm", "bomb.bmp")
    peak, said = peak_of(*((tmp_path / name, *WHOLE) for name in names))
    assert [message.split(":")[0] for message in said] == [f"DataError cannot read {tmp_path}/{name}" for name in names]
    assert peak < 64


def test_a_photograph_of_a_hundred_million_pixels_is_decoded_at_a_smaller_scale(tmp_path):
    Image.new("RGB", (11_600, 8_700), "red").save(tmp_path / "large.jpg")
    peak, said = peak_of((tmp_path / "large.jpg", *WHOLE))
    assert said == []
    assert peak < 64


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def test_postscript_is_no_image_whatever_it_is_called(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    called = tmp_path / "ghostscript was called"
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch '{called}'\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    (tmp_path / "x.png").write_bytes(POSTSCRIPT)
    with pytest.raises(DataError, match=r"cannot read .*x\.png: it is no BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"):
        decode(tmp_path / "x.png", 16, roots=ANYWHERE)
    assert not called.exists()


def decoded_before(path, image_size, crop_pct):
    """As it was before memory was bounded: all is scaled, and then cut."""
    shorter = math.floor(image_size / crop_pct)
    with Image.open(path) as file:
        file.draft("RGB", (shorter, shorter))
        image = file.convert("RGB")
    scale = shorter / min(image.size)
    width, height = (max(shorter, round(side * scale)) for side in image.size)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(scaled.crop((left, top, left + image_size, top + image_size))).transpose(2, 0, 1)


def noise(width, height, channels=3):
    pixels = np.random.default_rng(width).integers(256, size=(height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze())


def opaque(image):
    image.putalpha(255)
    return image


SAVED = [
    *[(name.lower(), name, noise(83, 61), {}) for name in FORMATS if name != "GIF"],
    ("gif", "GIF", noise(83, 61).quantize(64), {}),
    ("jpg", "JPEG", noise(900, 700).convert("CMYK"), {}),
    ("jpg", "JPEG", noise(900, 700), {"progressive": True}),
    ("png", "PNG", opaque(noise(61, 83)), {}),
    ("png", "PNG", noise(61, 83).quantize(16), {}),
    ("png", "PNG", noise(61, 83, 1), {}),
    ("tif", "TIFF", noise(61, 83), {"compression": "tiff_lzw"}),
    ("tif", "TIFF", noise(61, 83), {"compression": "jpeg"}),
    ("webp", "WEBP", noise(61, 83), {"lossless": True}),
]


@pytest.mark.parametrize(("suffix", "form", "image", "options"), SAVED)
@pytest.mark.parametrize(("image_size", "crop_pct"), [(32, 0.875), (96, 1.0)])
def test_an_ordinary_image_gives_the_same_bits_as_ever(tmp_path, suffix, form, image, options, image_size, crop_pct):
    path = tmp_path / f"image.{suffix}"
    image.save(path, form, **options)
    ours = decode(path, image_size, crop_pct=crop_pct, roots=ANYWHERE)
    assert np.array_equal(ours, decoded_before(path, image_size, crop_pct))


@pytest.mark.parametrize("sides", [(1, 1), (1, LONGEST), (LONGEST * 7, 7), (500, 333)])
def test_an_image_up_to_so_long_gives_the_same_bits_as_ever(tmp_path, sides):
    noise(*sides).save(tmp_path / "image.png")
    for crop_pct in (1.0, 0.875):
        ours = decode(tmp_path / "image.png", 64, crop_pct=crop_pct, roots=ANYWHERE)
        assert np.array_equal(ours, decoded_before(tmp_path / "image.png", 64, crop_pct))


@pytest.mark.parametrize("sides", [(1, 17), (17, 1), (300, 9), (9, 700), (40, 2000), (3000, 150)])
@pytest.mark.parametrize("image_size", [16, 64, 100])
def test_a_longer_one_differs_by_the_rounding_of_its_borders_at_most(tmp_path, sides, image_size):
    noise(*sides).save(tmp_path / "image.png")
    for crop_pct in (1.0, 0.875):
        ours = decode(tmp_path / "image.png", image_size, crop_pct=crop_pct, roots=ANYWHERE).astype(int)
        differences = abs(ours - decoded_before(tmp_path / "image.png", image_size, crop_pct))
        assert differences.max() <= 2
        assert differences.mean() < 0.25


def test_a_random_part_of_a_long_image_is_bounded_by_its_shorter_side(tmp_path, monkeypatch):
    """It is cut out before it is scaled, and is no longer than 4:3 where the image allows it."""
    seen = []
    part = decoding._scaled_part
    monkeypatch.setattr(decoding, "_scaled_part", lambda *given: seen.append(given[1]) or part(*given))
    noise(2, 50_000).save(tmp_path / "image.png")
    for number in (0.0, 0.5, 1.0):
        crop = torch.full((4,), number)
        assert decode(tmp_path / "image.png", 32, crop, roots=ANYWHERE).shape == (3, 32, 32)
    assert all(height * 50_000 <= 400 for _, _, _, height in seen)


def chained(times):
    """A pickle of a few hundred bytes that unfolds to `times` doublings, by a codec."""
    encode = b"c_codecs\nencode\n"
    text = b"(U\x08aaaaaaaaU\x06latin1tR"
    return encode * (times + 1) + text + b"U\x03hex\x86R" * times + b"."


def declared(count):
    """A CIFAR batch of so many images, none of which is there."""
    values = {"data": Declared((count, 3072)), "labels": [0] * 10}
    return pickle.dumps(values, protocol=2)


class Declared:
    def __init__(self, shape):
        self.shape = shape

    def __reduce__(self):
        return np.ndarray, (self.shape, np.dtype("u1"))


@pytest.mark.parametrize("content", [chained(10), declared(2**18)])
def test_a_small_pickle_does_not_unfold(tmp_path, content):
    (make_cifar(tmp_path) / "data_batch_1").write_bytes(content)
    assert len(content) < 1000
    with pytest.raises(DataError, match=r"cannot read .*data_batch_1 .*(holds text in hex|cannot be an array)"):
        load_dataset(DataSpec(dataset="cifar10", root=str(tmp_path)), (str(tmp_path),))


def test_a_packed_file_is_not_unpacked_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "MOST_BYTES", 2**16)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(2**20)))
    with pytest.raises(DataError, match="holds more than 65,536 bytes"):
        fashion_mnist.read_idx(tmp_path / "train-images-idx3-ubyte", ANYWHERE)
