"""Where the weights are that a training starts from: below the data roots, or in the export of another experiment.

Imports no torch: the server looks for them too.
"""

from collections.abc import Iterable
from pathlib import Path

from cbam_core.data_roots import DataRoots
from cbam_core.initial_weights.options import WeightsSpec
from workers.protocol.storage import ExperimentFolder


def locate(weights: WeightsSpec, *, storage: str | Path, data_roots: Iterable[str | Path]) -> tuple[Path, DataRoots]:
    """The file, and the folders that it may lie in, symbolic links resolved."""
    if weights.is_file:
        return Path(weights.source), DataRoots.of(data_roots)
    export = ExperimentFolder(Path(storage), weights.source)
    return export.weights, DataRoots.of([export.path])
