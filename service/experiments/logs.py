"""The log of an experiment: its attempts' files one after the other, so that an offset names one place for good."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from workers.protocol.storage import ExperimentFolder

CHUNK_BYTES = 256 * 1024
MESSAGE_BYTES = 16 * 1024  # a message that is cut on its way must come again as a whole


@dataclass(frozen=True)
class Chunk:
    """A piece of a log and the offset behind it. `attempt` is the one that wrote it; 0 where there is nothing."""

    data: bytes
    next_offset: int
    attempt: int = 0

    @property
    def text(self) -> str:
        """The piece as text."""
        return self.data.decode("utf-8", errors="replace")


def read(
    storage: Path, experiment_id: str, attempts: int, *, rank: int, offset: int, limit: int = CHUNK_BYTES
) -> Chunk:
    """Up to `limit` bytes of one rank's log from byte `offset` on; empty where there is no more yet."""
    folder = ExperimentFolder(storage, experiment_id)
    begin = 0
    for number in range(1, attempts + 1):
        path = folder.attempt(number).log(rank)
        length = _size(path)
        if offset < begin + length:
            with path.open("rb") as file:
                file.seek(offset - begin)
                data = file.read(limit)
            return Chunk(data, offset + len(data), number)
        begin += length
    return Chunk(b"", offset)


def size(storage: Path, experiment_id: str, attempts: int, *, rank: int) -> int:
    """Bytes in one rank's log so far."""
    folder = ExperimentFolder(storage, experiment_id)
    return sum(_size(folder.attempt(number).log(rank)) for number in range(1, attempts + 1))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def whole_lines(chunk: Chunk) -> Chunk:
    """The chunk up to its last line break, so that a line is never sent in two halves."""
    end = chunk.data.rfind(b"\n") + 1
    if end == 0 and len(chunk.data) < CHUNK_BYTES:
        return Chunk(b"", chunk.next_offset - len(chunk.data))
    end = end or len(chunk.data)
    return replace(chunk, data=chunk.data[:end], next_offset=chunk.next_offset - len(chunk.data) + end)


def in_messages(chunk: Chunk) -> Iterator[Chunk]:
    """The chunk in pieces of whole lines, each as large as a message should be, or one line."""
    data, offset = chunk.data, chunk.next_offset - len(chunk.data)
    while data:
        end = data.rfind(b"\n", 0, MESSAGE_BYTES) + 1 or data.find(b"\n") + 1 or len(data)
        offset += end
        yield replace(chunk, data=data[:end], next_offset=offset)
        data = data[end:]


def tail(storage: Path, experiment_id: str, attempt: int, *, rank: int = 0, lines: int = 20) -> str:
    """The last lines of one attempt's log, or an empty string."""
    path = ExperimentFolder(storage, experiment_id).attempt(attempt).log(rank)
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16 * 1024))
        return "\n".join(file.read().decode("utf-8", errors="replace").splitlines()[-lines:])
