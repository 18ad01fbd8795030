"""The layout on shared storage, and writes that are whole or absent whatever dies meanwhile. Imports no torch, no Ray.

experiments/<id>/spec.yaml
experiments/<id>/semantics
experiments/<id>/attempts/<n>/fence
experiments/<id>/attempts/<n>/rank-<r>.log
experiments/<id>/attempts/<n>/result.json
experiments/<id>/checkpoints/step-<k>/
experiments/<id>/export/          with a manifest, as each checkpoint has
experiments/.<id>.closed
"""

import errno
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "manifest.json"
"""Written last into a folder: what its files are, by bytes and sha256."""
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


@dataclass(frozen=True)
class AttemptFolder:
    """What one attempt leaves behind: its fence, the log of every rank, and one record of how it ended."""

    path: Path

    @property
    def result(self) -> Path:
        """How the attempt ended; absent until it has."""
        return self.path / "result.json"

    @property
    def fence(self) -> Path:
        """Its token, once it has begun; see workers/protocol/fence.py."""
        return self.path / "fence"

    def log(self, rank: int) -> Path:
        """What `rank` had to say."""
        return self.path / f"rank-{rank}.log"


@dataclass(frozen=True)
class ExperimentFolder:
    """All files of one experiment below the storage root. Raises ValueError for an id that is no plain name."""

    storage_root: Path
    experiment_id: str

    def __post_init__(self) -> None:
        if not _SAFE_ID.fullmatch(self.experiment_id):
            raise ValueError(f"an experiment id is letters, digits, '.', '_', '+' and '-'; got {self.experiment_id!r}")

    @property
    def path(self) -> Path:
        """The experiment's own folder."""
        return self.storage_root / "experiments" / self.experiment_id

    @property
    def tombstone(self) -> Path:
        """Left where the experiment is deleted, or its files are pruned: no attempt of it may begin, or write."""
        return self.path.with_name(f".{self.experiment_id}.closed")

    @property
    def spec(self) -> Path:
        """The spec as it was submitted."""
        return self.path / "spec.yaml"

    @property
    def semantics(self) -> Path:
        """The number of its meaning (see cbam_core/semantics.py), from before its spec on; absent: the earliest."""
        return self.path / "semantics"

    @property
    def initial_weights(self) -> Path:
        """Which weights file the first attempt started from, and what of it was loaded, as JSON."""
        return self.path / "initial_weights.json"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint; see workers/train/checkpoint.py."""
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """What a finished training hands on; see workers/export/weights.py."""
        return self.path / "export"

    @property
    def weights(self) -> Path:
        """The final weights, as safetensors with all that is needed to use them in its metadata."""
        return self.export / "model.safetensors"

    @property
    def torch_program(self) -> Path:
        """The classifier for torch.export.load, where the spec asks for it."""
        return self.export / "model.pt2"

    @property
    def onnx_program(self) -> Path:
        """The classifier as ONNX, where the spec asks for it."""
        return self.export / "model.onnx"

    @property
    def confusion_matrix(self) -> Path:
        """Counts of val images, rows are true classes, as JSON; before 0.2 of those held out."""
        return self.export / "confusion_matrix.json"

    @property
    def test_confusion_matrix(self) -> Path:
        """The same of the test images, where there are any."""
        return self.export / "confusion_matrix_test.json"

    @property
    def predictions(self) -> Path:
        """What the network says of every image of val and test; see workers/export/predictions.py."""
        return self.export / "predictions.parquet"

    @property
    def mlflow_run(self) -> Path:
        """Which run of MLflow is this experiment's; see workers/tracking/run_identity.py."""
        return self.path / "mlflow_run.json"

    @property
    def journal(self) -> Path:
        """What goes to MLflow, in order; see workers/tracking/journal.py."""
        return self.path / "tracking.jsonl"

    def attempt(self, number: int) -> AttemptFolder:
        """The folder of one attempt, counted from 1."""
        return AttemptFolder(self.path / "attempts" / str(number))

    def attempt_numbers(self) -> list[int]:
        """The attempts that have left a folder, in no order."""
        folder = self.path / "attempts"
        return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.is_dir() else []

    def last_attempt(self) -> int:
        """The highest attempt number that has left a folder; 0 where there is none."""
        return max(self.attempt_numbers(), default=0)


def folder_name(name: str) -> str:
    """The id under which a training without a service keeps its files: the name of its spec, without blanks."""
    return name.replace(" ", "-")


def write_atomically(path: Path, data: bytes | str, *, parents: bool = True, private: bool = False) -> None:
    """Replace `path` by `data`: a reader, or a crash at any moment, sees the old content or all of the new.

    Without `parents`, only into a folder that is there: FileNotFoundError where it has been deleted. `private`: for its
    owner alone, whatever the umask.
    """
    temporary = _write_beside(path, data, parents=parents, private=private)
    temporary.replace(path)
    sync_folder(path.parent)


def write_once(path: Path, data: bytes | str, *, parents: bool = True) -> bool:
    """Make `path` with `data` unless it exists. True for the one writer that made it, however many try at once.

    Without `parents`, only in a folder that is there: FileNotFoundError where it has been deleted.
    """
    temporary = _write_beside(path, data, parents=parents)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    sync_folder(path.parent)
    return True


def make_folder(path: Path, *, parents: bool = True) -> None:
    """Make `path`, for good: a folder that its parent has not been synced with is gone after a loss of power.

    Without `parents`, only in a folder that is there: FileNotFoundError where it has been deleted.
    """
    if path.is_dir():
        return
    if parents:
        make_folder(path.parent)
    try:
        path.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Have all that was written to `path`, by whatever process of this machine, outlast a loss of power."""
    _sync(path)


def sync_folder(path: Path) -> None:
    """Have what was made, renamed and removed in this folder outlast a loss of power."""
    _sync(path)


def _write_beside(path: Path, data: bytes | str, *, parents: bool, private: bool = False) -> Path:
    if parents:
        make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # on a full disk, whoever tries again and again would otherwise fill it with attempts
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
