"""A disk that is small enough to be full, and somebody who fills it."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

import pytest

FILL_SECONDS = 0.02


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own in the place of the folder, its size as `mount` reads it. Skips without root."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def kept_full(folder: Path) -> Iterator[None]:
    """Somebody else takes every byte that is free, and every one that becomes free, and gives all back at the end."""
    stop, filled = threading.Event(), threading.Event()
    path = folder / "somebody-elses"

    def fill() -> None:
        with path.open("wb", buffering=0) as file:
            while not stop.is_set():
                for size in (1 << 20, 1 << 12, 1):
                    write_all(file, size)
                filled.set()
                stop.wait(FILL_SECONDS)

    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    try:
        assert filled.wait(30)
        yield
    finally:
        stop.set()
        filler.join(timeout=30)
        path.unlink()


def write_all(file: FileIO, size: int) -> None:
    """Write so many bytes at once until no more fit."""
    zeros = bytes(size)
    with suppress(OSError):
        while file.write(zeros) == size:
            pass
