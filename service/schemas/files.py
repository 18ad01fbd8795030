"""What the API tells of the files of an experiment, and of links to them."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from service.schemas.base import View


class FileKind(StrEnum):
    """What a file is for, by its place in the experiment's folder."""

    LOG = "log"
    SPEC = "spec"
    WEIGHTS = "weights"
    EXPORT = "export"
    CHECKPOINT = "checkpoint"
    PREDICTIONS = "predictions"
    CONFUSION_MATRIX = "confusion_matrix"
    FIGURE = "figure"
    JOURNAL = "journal"
    OTHER = "other"


class FileView(View):
    """One file of an experiment."""

    path: str = Field(description="relative to the experiment's folder, with /")
    kind: FileKind
    size: int = Field(description="bytes; a log grows while it trains")
    sha256: str | None = Field(
        description="in hexadecimal; null where it is not known: GET or HEAD of the file with sha256=true computes it"
    )
    modified: datetime
    etag: str = Field(description="of this version of the file, for If-Range and If-None-Match")


class UnreadableFileView(View):
    """A file, or a folder with all that is in it, that is there and cannot be read."""

    path: str = Field(description="relative to the experiment's folder, with /")
    detail: str = Field(description="why")


class FileList(View):
    """Files of one experiment, by path."""

    items: list[FileView]
    unreadable: list[UnreadableFileView] = Field(
        [], description="what is there beside them, and cannot be read at the moment; a page holds both by path"
    )
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")


class FileLinkView(View):
    """A link to one file, which needs no token, works once, and soon no more."""

    url: str = Field(description="path and query below the server's address; whoever has it gets the file, once")
    expires_at: datetime
