"""Loads the weights file that a spec names into the network: the same bytes on every rank and in every attempt."""

import json
import logging

from torch import nn

from cbam_core.errors import WeightsUnavailable
from cbam_core.initial_weights.fitting import fit_file, normalisation_of
from cbam_core.initial_weights.options import WeightsSpec
from cbam_core.initial_weights.reading import read_weights
from cbam_core.initial_weights.report import WeightsReport
from cbam_core.normalisation import Normalisation
from workers.data import Dataset
from workers.protocol.assignment import Assignment
from workers.protocol.initial_weights import locate
from workers.protocol.storage import write_once
from workers.train.distributed import ProcessGroup

logger = logging.getLogger(__name__)
_COMPARED_DIGITS = 15  # of the digest, as a number that ranks can send each other


def load_initial_weights(
    network: nn.Module, weights: WeightsSpec, assignment: Assignment, dataset: Dataset, gang: ProcessGroup
) -> tuple[Normalisation | None, WeightsReport]:
    """Load the file into `network`; how its images are normalised (None: by their own mean), and what was loaded.

    Raises StateDictMismatch, WeightsUnavailable or DataError; see `read_weights` and `fit_file`. WeightsUnavailable
    also where rank 0, or the first attempt, has read another file.
    """
    path, roots = locate(weights, storage=assignment.storage, data_roots=assignment.data_roots)
    file = read_weights(path, roots, sha256=weights.sha256)
    number = int(file.sha256[:_COMPARED_DIGITS], 16)
    if gang.from_leader(number) != number:
        raise WeightsUnavailable(f"rank {gang.rank} reads another file than rank 0 as {path}: copy it to every node")
    report = fit_file(
        network,
        file,
        weights,
        model=assignment.spec.model,
        classes=dataset.classes,
        semantics=assignment.semantics,
    )
    if gang.leads:
        _check_same(report, assignment)
    logger.info("%s", report.words)
    if report.differs:
        logger.warning("the weights are of a model with another %s; they fit, and mean it otherwise", report.differs)
    return normalisation_of(file, weights, dataset.input_shape[0]), report


def _check_same(report: WeightsReport, assignment: Assignment) -> None:
    """Leave what was loaded beside the spec. Raises WeightsUnavailable where an earlier attempt loaded another file."""
    place = assignment.folder.initial_weights
    if write_once(place, json.dumps(report.to_dict(), indent=2), parents=False):
        return
    before = json.loads(place.read_text("utf-8"))["sha256"]
    if before != report.sha256:
        raise WeightsUnavailable(
            f"the weights {report.source} have changed since this experiment began: their SHA-256 is {report.sha256}, "
            f"and was {before}; put the file back, or start a new experiment"
        )
