"""The classes below a folder and their images, each folder read once; what is left out is counted."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from cbam_core.image_folders.names import SUFFIXES, is_ignored, suffix_of
from cbam_core.printable import escaped_line

FEWEST_CLASSES = 2
_NAMED = 5
"""So many classes, or kinds of files, are named in a message, at most."""
_ENTRIES_BETWEEN_LOOKS_AT_THE_CLOCK = 1000
_IN_NO_CLASS = " in no class folder"


class ListingTooLong(Exception):
    """The folder was not listed in the time there was."""


class Unlistable(DataError):
    """A folder cannot be listed by this process."""


class ClassFolders:
    """The folders in `folder`, each a class, and the images below each.

    Links are followed, of classes, folders and images alike, where they stay below `roots`; one that leads to a folder
    that is read already, as every circle does, is refused: its images would count twice. `left_out` counts what is
    neither a folder nor an image, nor ignored (`names.py`), by its extension. With a `deadline` (of time.monotonic)
    every method raises ListingTooLong after it; all raise DataError.
    """

    def __init__(self, folder: Path, roots: DataRoots, *, deadline: float | None = None) -> None:
        self.folder, self._roots, self._deadline = folder, roots, deadline
        self.left_out: Counter[str] = Counter()
        self._read: dict[str, str] = {}
        roots.check(folder)
        for place in (folder.parent, folder):
            self._enter(str(place), os.path.realpath(place))
        names = []
        for entry in self._entries(str(folder)):
            if entry.is_dir():
                names.append(entry.name)
            else:
                self._leave_out(entry.name, beside_classes=True)
        self.names = tuple(sorted(names))
        """The classes, in order."""

    def images(self, name: str) -> list[Path]:
        """The images of a class, in order, as paths below `folder`."""
        top = os.path.join(self.folder, name)
        found, folders = [], [(top, os.path.realpath(top))]
        while folders:
            folder, resolved = folders.pop()
            self._enter(folder, resolved)
            for entry in self._entries(folder):
                if entry.is_dir():
                    inside = os.path.join(resolved, entry.name)
                    folders.append((entry.path, os.path.realpath(inside) if entry.is_symlink() else inside))
                elif suffix_of(entry.name) in SUFFIXES:
                    found.append(Path(entry.path))
                else:
                    self._leave_out(entry.name)
        return sorted(found)

    def check_names(self) -> None:
        """Raise DataError, with what is there instead, for fewer than two classes, or a name that is no text."""
        if unreadable := [name for name in self.names if not _is_text(name)]:
            raise DataError(f"{shown(self.folder)} has a class whose name is not UTF-8: {some(unreadable)}; rename it")
        if len(self.names) >= FEWEST_CLASSES:
            return
        expected = f"expected two classes or more, as {shown(self.folder.name)}/<class>/<image>"
        if not self.names:
            raise DataError(f"{shown(self.folder)} holds {self.contents()} and no class folders; {expected}")
        inner = ClassFolders(self.folder / self.names[0], self._roots, deadline=self._deadline)
        if inner.names and not inner._has_loose_images():
            raise DataError(
                f"{shown(self.folder)} has one folder, {shown(self.names[0])}, which holds {some(inner.names)}: "
                f"a level too many; {expected}: move them up"
            )
        raise DataError(f"{shown(self.folder)} has one class, {shown(self.names[0])}; {expected}")

    def summary(self) -> str:
        """What was left out up to now, as `12 .gif, 1 .txt`; empty where nothing was."""
        ordered = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        return some([f"{count} {kind}" for kind, count in ordered])

    def contents(self) -> str:
        """What lies right in `folder`, before images are listed: `the folders a, b and 3 .txt`, or `nothing`."""
        folders = [f"the folder{'s' * (len(self.names) > 1)} {some(self.names)}"] if self.names else []
        return " and ".join(folders + ([self.summary()] if self.left_out else [])) or "nothing"

    def _has_loose_images(self) -> bool:
        return any(kind.endswith(_IN_NO_CLASS) for kind in self.left_out)

    def _leave_out(self, name: str, *, beside_classes: bool = False) -> None:
        suffix = suffix_of(name)
        is_loose_image = beside_classes and suffix in SUFFIXES
        self.left_out[(shown(suffix) or "without an extension") + (_IN_NO_CLASS if is_loose_image else "")] += 1

    def _enter(self, folder: str, resolved: str) -> None:
        """Note that a folder is read. Raises DataError where it is, by a link, one that was read before."""
        first = self._read.setdefault(resolved, folder)
        if first != folder:
            raise DataError(
                f"{shown(folder)} and {shown(first)} are the same folder, by a link: its images would count twice; "
                "delete the link"
            )

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """What counts in a folder, its links checked."""
        try:
            with os.scandir(folder) as entries:
                for number, entry in enumerate(entries):
                    if number % _ENTRIES_BETWEEN_LOOKS_AT_THE_CLOCK == 0:
                        self._check_time()
                    if is_ignored(entry.name):
                        continue
                    if entry.is_symlink():
                        self._check_link(entry.path)
                    yield entry
        except OSError as error:
            raise _unlistable(folder, error) from error

    def _check_link(self, path: str) -> None:
        self._roots.check(path)
        try:
            os.stat(path)
        except OSError as error:
            raise DataError(f"{shown(path)} is a link that leads nowhere ({error.strerror}); delete it") from error

    def _check_time(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise ListingTooLong


def shown(path: str | Path) -> str:
    """A name as a message may hold it."""
    return escaped_line(str(path))


def some(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    listed = ", ".join(map(shown, names[:_NAMED]))
    return listed + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unlistable(folder: str, error: OSError) -> Unlistable:
    return Unlistable(f"cannot list {shown(folder)}: {error}; the training must be able to read it")
