"""What all parts of a spec share."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
"""A number from 0 up to, but not including, 1."""


def _by_type(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


TypeAlone = BeforeValidator(_by_type)
"""Lets a part that names its kind by `type` be that name alone, with its defaults: `cbam` for `{type: cbam}`."""


class SpecModel(BaseModel):
    """Unknown words are errors, no silent conversion, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
