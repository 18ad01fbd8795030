"""The meaning of an experiment, by number, where it has changed: an old experiment keeps the meaning it began with.

| | 1 (until version 0.1) | 2 |
|---|---|---|
| val | the part that the dataset holds out; there is no test | cut from the training images (`data.val`) |
| first weights | drawn one after the other from one seed | drawn from the seed and the module's name |
| attention in timm's networks | after the block, behind its shortcut | on the branch, before the shortcut is added |

A retry and a resume keep the number; a clone and a new submission get the current one.
"""

from typing import Literal, get_args

from cbam_core.errors import SpecError
from cbam_core.spec import ExperimentSpec

Semantics = Literal[1, 2]
CURRENT: Semantics = 2
EARLIEST: Semantics = 1
"""What was made before there was a number."""


def known(number: int) -> Semantics:
    """The number, where this version can keep to it. Raises SpecError for one of a later version."""
    for semantics in get_args(Semantics):
        if semantics == number:
            return semantics  # type: ignore[no-any-return]
    raise SpecError(f"it was made with semantics {number}, and this version knows up to {CURRENT}: upgrade cbam-lab")


def as_meant(spec: ExperimentSpec, semantics: Semantics) -> ExperimentSpec:
    """The spec with what it says by default made that of its time: at 1, the part that is held out is val."""
    if semantics == CURRENT:
        return spec
    return spec.model_copy(update={"data": spec.data.model_copy(update={"val": "folder"})})
