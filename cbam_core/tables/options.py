"""`data.columns` of a spec: which columns of a table hold what. Imports neither torch nor pyarrow."""

from typing import Annotated

from pydantic import Field, StringConstraints

from cbam_core.spec_model import SpecModel

Column = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]


class ColumnsSpec(SpecModel):
    """The columns of a table of images."""

    image: Column = Field(
        "image",
        description="paths (relative ones are below the table's folder), encoded images as bytes, or Hugging Face's "
        "images, which hold either",
    )
    label: Column = Field("label", description="classes by name, or by number")
    split: Column | None = Field(
        None, description="train, val (validation, valid, dev) or test of each row; null: as the files are named, if so"
    )
