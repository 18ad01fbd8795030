"""How every process of the service logs: one line for each record, as logfmt or JSON, with what the record is about.

Whoever handles a request or attends an experiment says so once, with `log_context`; every record of that thread or
task then carries it. `log.info("…", extra={"status": 200})` adds fields to one record.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from cbam_core.printable import escaped_line
from service.redaction import redact

LogFormat = Literal["logfmt", "json"]
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/:+@,%")
_about: ContextVar[Mapping[str, object]] = ContextVar("about", default={})  # noqa: B039 - never changed in place


@contextmanager
def log_context(**fields: object) -> Iterator[None]:
    """Let every record made meanwhile, in this thread or task and in what it starts, carry these fields."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def configure(process: str, *, form: LogFormat = "logfmt", level: str = "INFO") -> None:
    """Send all that this process logs to stderr in this form. `process` is what it calls itself: api, dispatcher …"""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(process, form))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for chatty in ("httpx2", "httpcore2", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class LineFormatter(logging.Formatter):
    """A record as one line.

    What breaks a line, steers a terminal or turns the direction of text is escaped, as in JSON: so no text from outside
    can pass for a record of its own, or for another text.
    """

    def __init__(self, process: str, form: LogFormat) -> None:
        super().__init__()
        self.process = process
        self.write = _json if form == "json" else _logfmt

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= _about.get()
        extras = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        fields |= {name: value for name, value in extras.items() if not name.startswith("_")}  # Ray adds its own
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return escaped_line(redact(self.write(fields)))


def _json(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, ensure_ascii=False, default=str)


def _logfmt(fields: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_word(value)}" for name, value in fields.items() if value is not None)


def _word(value: Any) -> str:
    """A value as logfmt has it: bare where that is clear, else in quotes, escaped as in JSON."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if text and _BARE.issuperset(text) else json.dumps(text, ensure_ascii=False)
