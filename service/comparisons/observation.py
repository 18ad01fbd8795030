"""What one run of a comparison reached, image by image, in a form that a row of the database holds."""

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from service.errors import NoPredictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ROWS = 4_000_000
MOST_BYTES = 2**29
PARTS = {"test/top1": "test", "val/top1": "val"}


@dataclass(frozen=True, eq=False)
class Observation:
    """Which images were right, in the order of the part.

    right   bool, N
    groups  int32, N: the same number for images that are no new evidence beside each other; None: each its own
    digest  of the images' places and labels: two runs with the same digest were measured on the same images
    """

    right: "NDArray[np.bool_]"
    groups: "NDArray[np.int32] | None"
    classes: int
    digest: str

    @property
    def correct(self) -> int:
        """How many images were right."""
        return int(self.right.sum())

    def to_json(self) -> dict[str, Any]:
        """As a row holds it: about an eighth of a byte for each image."""
        packed = {
            "images": len(self.right),
            "classes": self.classes,
            "digest": self.digest,
            "right": _text(np.packbits(self.right).tobytes()),
        }
        return packed if self.groups is None else packed | {"groups": _text(self.groups.astype("<i4").tobytes())}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """Back from `to_json`."""
        groups = stored.get("groups")
        numbers = None if groups is None else np.frombuffer(_bytes(groups), dtype="<i4").astype(np.int32)
        return cls(right_images(stored), numbers, stored["classes"], stored["digest"])


def right_images(stored: dict[str, Any]) -> "NDArray[np.bool_]":
    """Which images were right, [N], of what `Observation.to_json` made; without the groups, which take longer."""
    bits = np.frombuffer(_bytes(stored["right"]), dtype=np.uint8)
    return np.unpackbits(bits, count=stored["images"]).view(np.bool_)


def read_observation(predictions: Path, metric: str, *, best: bool = False) -> Observation:
    """What predictions.parquet says of the part that `metric` is of; with `best`, of the best checkpoint's weights.

    Raises NoPredictions where the file, or that part of it, is not there, or cannot be what a training has written;
    OSError where storage does not answer.
    """
    import pyarrow as pa

    if predictions.exists() and not predictions.is_file():
        raise NoPredictions("its predictions are no file")
    try:
        return _read(predictions, PARTS[metric], best=best)
    except FileNotFoundError as error:
        raise NoPredictions from error
    except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise NoPredictions(f"its predictions cannot be read: {type(error).__name__}: {error}") from error


def _read(predictions: Path, part: str, *, best: bool) -> Observation:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(predictions)
    _check_size(file.metadata)
    columns = ["split", "index", "label", "predicted"]
    if not all(pa.types.is_integer(file.schema_arrow.field(name).type) for name in columns[1:]):
        raise NoPredictions("its predictions hold no class numbers")
    grouped = "group" in file.schema_arrow.names
    table = file.read(columns=[*columns, "group"] if grouped else columns)
    splits = np.asarray(table["split"].to_numpy(zero_copy_only=False), dtype=str)
    wanted = f"{part}_best" if best and (splits == f"{part}_best").any() else part  # once where the two are the same
    chosen = table.filter(splits == wanted)
    if not chosen.num_rows:
        raise NoPredictions(f"its predictions hold nothing of {part}")
    label, index = (chosen[name].to_numpy().astype("<i8") for name in ("label", "index"))
    classes = len(json.loads(table.schema.metadata[b"classes"]))
    if classes < 1:
        raise NoPredictions("its predictions name no classes")
    return Observation(
        right=label == chosen["predicted"].to_numpy(),
        groups=_numbers(chosen["group"].to_pylist()) if grouped and chosen["group"].null_count < len(label) else None,
        classes=classes,
        digest=hashlib.sha256(label.tobytes() + index.tobytes()).hexdigest()[:16],
    )


def _check_size(metadata: Any) -> None:
    """Whoever can write below the storage's root must not be able to fill the dispatcher's memory."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if metadata.num_rows > MOST_ROWS or sum(group.total_byte_size for group in groups) > MOST_BYTES:
        raise NoPredictions("its predictions are larger than those of any training")


def _numbers(groups: Sequence[str | None]) -> "NDArray[np.int32]":
    """A number for each image, the same for those of one group; an image of no group stands alone."""
    numbers: dict[object, int] = {}
    keys = [(place,) if group is None else group for place, group in enumerate(groups)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int32)


def _text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _bytes(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
