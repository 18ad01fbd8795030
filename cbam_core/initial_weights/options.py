"""`model.weights` of a spec: the file that a training starts from, and what of it is left out. Imports no torch."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator

from cbam_core.bounds import at_most
from cbam_core.spec_model import SpecModel

_EXPERIMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
BACKBONE = "backbone"
"""In `freeze`: everything but the head and the attention."""


class WeightsSpec(SpecModel):
    """The weights that a training starts from: every one of the file and of the network, or a refusal by name."""

    source: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = Field(
        description="absolute path of a file below one of the server's data roots, or the id of an experiment that has "
        "an export. A file is safetensors or torch's, of a network, of our export or checkpoint, or of the authors' "
        "training script (`state_dict`, `module.`), in our names, the authors' or timm's"
    )
    head: Literal["load", "drop"] = Field(
        "load", description="drop: leave out the file's classifier, as for other classes, and start with a new one"
    )
    attention: Literal["load", "drop"] = Field(
        "load", description="drop: leave out the file's attention, if it has any, and start with new modules"
    )
    normalisation: Literal["auto", "imagenet", "dataset"] = Field(
        "auto",
        description="mean and deviation of the images: auto is what the file says (our exports and checkpoints do), "
        "else ImageNet's, as published weights have it; dataset: of the training images",
    )
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="digest of the file, recorded at the submission; other bytes are refused"
    )

    @property
    def is_file(self) -> bool:
        """Whether `source` is a path, and not the id of an experiment."""
        return self.source.startswith("/")

    @field_validator("source")
    @classmethod
    def _path_or_id(cls, value: str) -> str:
        if value.startswith("/"):
            if "\0" in value or ".." in PurePosixPath(value).parts:
                raise ValueError("a weights file is named by an absolute path without `..`")
        elif not _EXPERIMENT_ID.fullmatch(value):
            raise ValueError("an absolute path of a weights file, or the id of an experiment")
        return value


def _by_source(value: object) -> object:
    return {"source": value} if isinstance(value, str) else value


def _one_of(value: object) -> object:
    return (value,) if isinstance(value, str) else value


InitialWeights = Annotated[WeightsSpec | None, BeforeValidator(_by_source)]
"""The file's path or the experiment's id alone will do."""
Freeze = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=256)], ...],
    Field(strict=False, max_length=64),
    at_most(64),
    BeforeValidator(_one_of),
]
"""Names of modules; one alone will do."""
