"""What one run of a comparison reached, image by image, in a form that a row of the database holds."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from service.errors import NoPredictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


def read_observation(predictions: Path, metric: str, *, best: bool = False, group: str | None = None) -> Observation:
    """What predictions.parquet says of the part that `metric` is of; with `best`, of the best checkpoint's weights.

    `group` is the regular expression of `data.val.group`. Raises NoPredictions where the file, or that part of it, is
    not there; OSError where storage does not answer.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(predictions, columns=["split", "index", "path", "label", "predicted"])
    except FileNotFoundError as error:
        raise NoPredictions from error
    part = PARTS[metric]
    splits = np.asarray(table["split"].to_numpy(zero_copy_only=False), dtype=str)
    wanted = f"{part}_best" if best and (splits == f"{part}_best").any() else part  # once where the two are the same
    chosen = table.filter(splits == wanted)
    if not chosen.num_rows:
        raise NoPredictions(f"its predictions hold nothing of {part}")
    label, index = chosen["label"].to_numpy(), chosen["index"].to_numpy()
    paths: list[str | None] = chosen["path"].to_pylist()
    return Observation(
        right=label == chosen["predicted"].to_numpy(),
        groups=None if group is None or paths[0] is None else _groups([path or "" for path in paths], group),
        classes=len(json.loads(table.schema.metadata[b"classes"])),
        digest=_digest(label, index, paths),
    )


def _groups(paths: Sequence[str], pattern: str) -> "NDArray[np.int32]":
    """A number for each path, the same where the pattern finds the same; what it finds nothing in stands alone."""
    expression = re.compile(pattern)
    found = [expression.search(path) for path in paths]
    keys = [
        path if match is None else (match[match.re.groups and 1],) for path, match in zip(paths, found, strict=True)
    ]
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int32)


def _digest(label: "NDArray[Any]", index: "NDArray[Any]", paths: Sequence[str | None]) -> str:
    digest = hashlib.sha256(label.astype("<i8").tobytes())
    digest.update(index.astype("<i8").tobytes())
    digest.update("\n".join(path or "" for path in paths).encode())
    return digest.hexdigest()[:16]


def _text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _bytes(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
