"""Your own images, in ImageNet's layout: root/train/<class>/*.jpg and root/val/<class>/*.jpg.

Decoded once, by many threads, and held as uint8 like every other dataset; so it must fit into memory.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image, UnidentifiedImageError

from cbam_core.errors import DataError
from workers.data.dataset import Dataset, Split

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_TEST_NAMES = ("val", "test")
_LAYOUT = "expected train/<class>/<image> and val/<class>/<image>"


def load_imagefolder(root: Path, image_size: int) -> Dataset:
    """All images below `root`, at `image_size`, three channels; classes are the folders' names, in order.

    Raises DataError, with what to do, for a wrong layout, an unreadable image, or more than memory holds.
    """
    train = root / "train"
    test = next((root / name for name in _TEST_NAMES if (root / name).is_dir()), None)
    if not train.is_dir() or test is None:
        raise DataError(f"{root} has no train and val folder; {_LAYOUT}")
    classes = tuple(sorted(folder.name for folder in train.iterdir() if folder.is_dir()))
    parts = [_files(train, classes), _files(test, classes)]
    _check_memory(sum(map(len, parts)) * 3 * image_size**2)
    return Dataset.of(_read(parts[0], image_size), _read(parts[1], image_size), classes)


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Every image below `folder` with its class, in a fixed order."""
    unknown = sorted({child.name for child in folder.iterdir() if child.is_dir()} - set(classes))
    if unknown:
        raise DataError(f"{folder} has classes that the training images do not have: {', '.join(unknown[:5])}")
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise DataError(f"{folder} has no images ({', '.join(sorted(SUFFIXES))}); {_LAYOUT}")
    return files


def _check_memory(needed: int) -> None:
    available = psutil.virtual_memory().available
    if needed > available // 2:
        raise DataError(
            f"the images take {needed / 2**30:.1f} GiB of the {available / 2**30:.1f} GiB that are free; "
            "choose a smaller image_size, or a machine with more memory"
        )


def _read(files: list[tuple[Path, int]], image_size: int) -> Split:
    images = torch.empty(len(files), 3, image_size, image_size, dtype=torch.uint8)

    def read(number: int) -> None:
        images[number] = torch.from_numpy(_decode(files[number][0], image_size))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(read, range(len(files))))
    return Split(images, torch.tensor([label for _, label in files], dtype=torch.int64))


def _decode(path: Path, image_size: int) -> np.ndarray:
    """uint8 3 H W: the shorter side scaled to image_size, then the middle."""
    try:
        with Image.open(path) as file:
            file.draft("RGB", (image_size, image_size))
            image = file.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; delete it, or copy it again") from error
    scale = image_size / min(image.size)
    width, height = (max(image_size, round(side * scale)) for side in image.size)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    middle = scaled.crop((left, top, left + image_size, top + image_size))
    return np.asarray(middle).transpose(2, 0, 1).copy()
