"""The weights that a submission starts from: whether they are there and may be read, and which bytes they are.

The digest is written into the spec, so that a retry, a clone and every run of a comparison start from the same bytes,
or fail by name.
"""

import hashlib
import json
import os
import re
from collections import OrderedDict
from pathlib import Path

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from cbam_core.initial_weights.options import WeightsSpec
from cbam_core.spec import ExperimentSpec
from service.database.engine import Database
from service.database.models.experiments import Experiment
from service.errors import InvalidField
from service.experiments.file_digests import Version, version_of
from service.settings import Settings
from workers.protocol.initial_weights import locate
from workers.protocol.storage import MANIFEST

POINTER = "/model/weights"
MOST_BYTES = 16 * 2**30
MOST_KNOWN = 256
_DIGEST = re.compile(r"[0-9a-f]{64}")
_known: OrderedDict[Version, str] = OrderedDict()


def with_digest(database: Database, settings: Settings, spec: ExperimentSpec) -> ExperimentSpec:
    """The spec with the digest of the weights that it names.

    A file that this server does not see may be there for the workers: its digest stays open, and the first attempt's is
    kept. Raises InvalidField for what is not there, lies outside the data roots, is no file, or has another digest; of
    an experiment, also where there is none of that id, or it has left no weights.
    """
    weights = spec.model.weights
    if weights is None:
        return spec
    found = _of_file(settings, weights) if weights.is_file else _of_experiment(database, settings, weights)
    if found is None:
        return spec
    if weights.sha256 not in (None, found):
        raise InvalidField(
            f"{POINTER}/sha256",
            f"{weights.source} has the SHA-256 {found}: leave `sha256` out to start from it, or put the other back",
        )
    return _with(spec, weights.model_copy(update={"sha256": found}))


def same_weights(spec: ExperimentSpec, other: ExperimentSpec) -> ExperimentSpec:
    """`spec` with the weights that `other` starts from."""
    return _with(spec, other.model.weights)


def _with(spec: ExperimentSpec, weights: WeightsSpec | None) -> ExperimentSpec:
    return spec.model_copy(update={"model": spec.model.model_copy(update={"weights": weights})})


def _of_file(settings: Settings, weights: WeightsSpec) -> str | None:
    path, roots = locate(weights, storage=settings.storage_root, data_roots=settings.data_roots)
    if not roots.hold(path):
        opened = ", ".join(map(str, settings.data_roots)) or "there are none"
        raise InvalidField(POINTER, f"{path} is not below one of the data roots ({opened}); put it there")
    if not os.path.lexists(path) and not roots.shows(path):
        return None
    return _digest(path, roots)


def _of_experiment(database: Database, settings: Settings, weights: WeightsSpec) -> str:
    with database.reading() as session:
        row = session.get(Experiment, weights.source)
    if row is None:
        raise InvalidField(
            POINTER,
            f"there is no experiment {weights.source}; give the whole id of one, or the absolute path of a file",
        )
    path, roots = locate(weights, storage=settings.storage_root, data_roots=settings.data_roots)
    if not path.is_file():
        pruned = ", and its files are pruned" if row.pruned else ""
        raise InvalidField(POINTER, f"experiment {row.id} ({row.name}) has left no weights: it is {row.state}{pruned}")
    return _told_by_manifest(path) or _digest(path, roots)


def _told_by_manifest(path: Path) -> str | None:
    """What the export says of its file; None where it does not say, or the file is not as long."""
    try:
        told = json.loads((path.parent / MANIFEST).read_text("utf-8"))["files"][path.name]
        digest, size = told["sha256"], told["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if path.stat().st_size == size and _DIGEST.fullmatch(str(digest)) else None


def _digest(path: Path, roots: DataRoots) -> str:
    """Raises InvalidField for what is no file that can be read, or is too large to be weights."""
    try:
        with roots.open(path) as file:
            version = version_of(os.fstat(file.fileno()))
            if version[2] > MOST_BYTES:
                raise InvalidField(POINTER, f"{path} has more than {MOST_BYTES >> 30} GiB")
            if (found := _known.get(version)) is None:
                found = _known[version] = hashlib.file_digest(file, "sha256").hexdigest()
                while len(_known) > MOST_KNOWN:
                    _known.popitem(last=False)
            return found
    except OSError as error:
        raise InvalidField(POINTER, f"{path} cannot be read: {error.strerror}") from error
    except DataError as error:
        raise InvalidField(POINTER, str(error)) from error
