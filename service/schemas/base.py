"""What all answers share."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:  # a client reads these views, and needs no database
    pass


class View(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(frozen=True, from_attributes=True)
