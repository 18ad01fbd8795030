"""Which files of a folder are read, by their names alone."""

import os

SUFFIXES = frozenset(
    (".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
"""Of still images. `.gif` is left out, and said to be: of an animation, the first frame is often empty."""
_LEFT_BY_MACHINES = frozenset(
    (
        "__macosx",
        "@eadir",
        "@recycle",
        "#recycle",
        "$recycle.bin",
        "desktop.ini",
        "lost+found",
        "system volume information",
        "thumbs.db",
    )
)
"""What operating systems, archives and network disks put into folders; in small letters."""


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is nobody's data: `.ipynb_checkpoints`, `._cat.jpg`, `Thumbs.db`."""
    return name.startswith(".") or name.casefold() in _LEFT_BY_MACHINES


def suffix_of(name: str) -> str:
    """The name's extension with its dot, in small letters; empty where there is none."""
    return os.path.splitext(name)[1].lower()
