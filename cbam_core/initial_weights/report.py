"""What of a weights file was loaded, and what of the file and of the network was not. Imports no torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

MOST_NAMES = 20


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """The outcome of fitting a file into a network; names are the network's own.

    layout         whose names the file has: ours, authors or timm
    loaded         weights, and running statistics, that were taken from the file
    missing        those of the network that were not in it, or were not to be loaded: they start new
    unexpected     those of the file that were not to be loaded
    normalisation  of the images: file, imagenet or dataset
    differs        fields of the model in which the experiment that the file is from was another
    """

    source: str
    sha256: str
    layout: str
    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    normalisation: str = "dataset"
    differs: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """All of it, in a line."""
        layout = "" if self.layout == "ours" else f" of the layout {self.layout}"
        differs = f"; the model that they are from has another {', '.join(self.differs)}" if self.differs else ""
        return (
            f"weights of {self.source} (sha256 {self.sha256[:12]}…): {self.loaded} loaded{layout}, "
            f"{_some(self.missing, 'missing')}, {_some(self.unexpected, 'unexpected')}; images are normalised by "
            f"{_NORMALISED[self.normalisation]}{differs}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: of many names, the first; how many there are stands beside them."""
        fields: dict[str, Any] = asdict(self)
        for name in ("missing", "unexpected"):
            fields[name] = list(fields[name][:MOST_NAMES])
        counts = {"missing_count": len(self.missing), "unexpected_count": len(self.unexpected)}
        return fields | counts | {"differs": list(self.differs)}

    def with_normalisation(self, normalisation: str) -> Self:
        """The same, of images that are normalised otherwise."""
        return type(self)(**vars(self) | {"normalisation": normalisation})


_NORMALISED = {
    "file": "the mean and deviation that the file gives",
    "imagenet": "ImageNet's mean and deviation",
    "dataset": "the mean and deviation of the training images",
}


def _some(names: Sequence[str], what: str) -> str:
    if not names:
        return f"0 {what}"
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{len(names)} {what} ({', '.join(names[:2])}{more})"
