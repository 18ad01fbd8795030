"""A disk that forgets what was not synced: what would be left of a folder if the power went at any moment.

A file system may keep more than was synced, in an order of its own. So there are two images of every moment: of one
that kept nothing else, and of one that wrote every name down at once (what was made, renamed, removed), but no data.
"""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

_CHANGES = ("unlink", "remove", "rename", "replace", "link", "rmdir", "mkdir")


class ForgetfulDisk:
    """Everything below `root`, of which what is there now counts as synced."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.look: Callable[[Path], None] | None = None
        self._data: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._kinds: dict[int, int] = {}
        self._held: list[int] = []  # an inode that is held is never another file's
        self._image = root.with_name(f"{root.name}-image")
        root.mkdir(exist_ok=True)
        for folder, _, files in os.walk(root):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                self._hold(path)
        self._plain = {name: getattr(os, name) for name in ("fsync", *_CHANGES)}
        monkeypatch.setattr(os, "fsync", self._fsync)
        for name in _CHANGES:
            monkeypatch.setattr(os, name, self._watched(self._plain[name]))

    def close(self) -> None:
        """Let go of what was held."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def lose_power(self) -> list[Path]:
        """What may be left now, one folder for each way in which the disk may have worked."""
        look, self.look = self.look, None
        try:
            shutil.rmtree(self._image, ignore_errors=True)
            images = [self._image / "synced", self._image / "all-names"]
            self._build_synced(self.root.stat().st_ino, images[0])
            self._build_all(self.root, images[1])
        finally:
            self.look = look
        return images

    def _fsync(self, descriptor: int) -> None:
        self._plain["fsync"](descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if Path(path).is_relative_to(self.root):
            self._hold(path)
            self._show()

    def _hold(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        self._held.append(descriptor)
        about = os.fstat(descriptor)
        self._kinds[about.st_ino] = about.st_mode
        if stat.S_ISDIR(about.st_mode):
            entries = list(os.scandir(path))
            self._names[about.st_ino] = {entry.name: entry.inode() for entry in entries}
            self._kinds |= {entry.inode(): entry.stat(follow_symlinks=False).st_mode for entry in entries}
        else:
            self._data[about.st_ino] = Path(path).read_bytes()

    def _watched(self, change: Callable[..., None]) -> Callable[..., None]:
        def do(*words, **options):
            change(*words, **options)
            self._show()

        return do

    def _show(self) -> None:
        if self.look is not None:
            look = self.look
            for image in self.lose_power():
                self.look = None
                try:
                    look(image)
                finally:
                    self.look = look

    def _build_synced(self, inode: int, target: Path) -> None:
        self._plain["mkdir"](target) if target.parent.exists() else os.makedirs(target)
        for name, inner in self._names.get(inode, {}).items():
            if stat.S_ISDIR(self._kinds[inner]):
                self._build_synced(inner, target / name)
            else:
                (target / name).write_bytes(self._data.get(inner, b""))

    def _build_all(self, folder: Path, target: Path) -> None:
        target.mkdir(parents=True)
        for entry in os.scandir(folder):
            if entry.is_dir():
                self._build_all(Path(entry.path), target / entry.name)
            else:
                synced, size = self._data.get(entry.inode(), b""), entry.stat().st_size
                (target / entry.name).write_bytes(synced[:size].ljust(size, b"\0"))
