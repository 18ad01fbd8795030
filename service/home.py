"""The home folder of the local stack: where it is, and that only its owner may read it."""

import os
from pathlib import Path

from service.errors import StackError

DEFAULT_HOME = Path("~/.cbam")
FOR_OTHERS = 0o077
WRITABLE_BY_OTHERS = 0o022


def absolute(path: Path, setting: str) -> Path:
    """The path from the root on, with `~` replaced. Raises StackError where nothing says what `~` is."""
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise StackError(
            f"{path}: this user has no home folder (HOME is not set); set {setting} to a folder"
        ) from error


def private_folder(path: Path) -> None:
    """Make a folder for its owner alone. Raises StackError where somebody else made it, or it is a link."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = path.lstat()
    if path.is_symlink() or state.st_uid != os.getuid():
        raise StackError(f"{path} belongs to another user; remove it, or set CBAM_HOME to a folder of your own")
    if state.st_mode & FOR_OTHERS:
        path.chmod(0o700)


def private_home(home: Path, ours: tuple[str, ...]) -> None:
    """Close a home folder to others. One that holds other things than `ours` stays open for reading.

    Raises StackError where another user owns it, or may write into it.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(f"{home} cannot be made ({error.strerror}); set CBAM_HOME to a folder of your own") from error
    state = home.stat()
    if state.st_uid != os.getuid():
        raise StackError(f"{home} belongs to another user; set CBAM_HOME to a folder of your own")
    names = {entry.name for entry in home.iterdir()}
    if not names or names & set(ours):
        home.chmod(state.st_mode & 0o700)
    elif state.st_mode & WRITABLE_BY_OTHERS:
        raise StackError(f"other users may write in {home}; set CBAM_HOME to a folder of its own, or run chmod 700")
