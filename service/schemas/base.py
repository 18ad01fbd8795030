"""What all answers share."""

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(frozen=True, from_attributes=True)
