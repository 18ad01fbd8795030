"""What all parts of a spec share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
"""A number from 0 up to, but not including, 1."""


class SpecModel(BaseModel):
    """Unknown words are errors, no silent conversion, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
