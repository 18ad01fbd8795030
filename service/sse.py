"""Server-Sent Events, as a client reads them (WHATWG HTML, section 9.2.6)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One event: its kind, its text, and the id from which a cut stream is taken up again."""

    event: str
    data: str
    id: str


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """The messages in the lines of a stream. Comments (heartbeats) are skipped, and so is a message that was cut."""
    event, last_id = "message", ""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield Message(event, "\n".join(data), last_id)
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            event = value
        elif name == "id":
            last_id = value


def lines_of(chunks: Iterable[str]) -> Iterator[str]:
    """The lines in pieces of text. Only CR, LF and CRLF end a line; a log may hold other line separators."""
    rest = ""
    for chunk in chunks:
        rest = (rest + chunk).replace("\r\n", "\n")
        held = "\r" if rest.endswith("\r") else ""  # its LF may be in the next piece
        *whole, rest = rest.removesuffix(held).replace("\r", "\n").split("\n")
        rest += held
        yield from whole
