"""What the local stack has started: process ids, ports and addresses, in `stack.json` of the home folder."""

import contextlib
import fcntl
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from service.errors import StackError
from service.home import private_home
from workers.protocol.addresses import host_and_port
from workers.protocol.storage import write_atomically

LOCK_PATIENCE_SECONDS = 300.0
OURS = ("stack.json", "stack.lock", "cbam.db")
"""What tells a home folder from another one."""


@dataclass(frozen=True)
class ProcessRecord:
    """A process that leads a session of its own; the time of its birth tells it from a later one of the same id."""

    pid: int
    create_time: float


@dataclass
class StackRecord:
    """All that must be known to find again, and to stop, what was started."""

    stack_id: str = field(default_factory=lambda: secrets.token_hex(8))
    host: str = "127.0.0.1"
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, ProcessRecord] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)  # that the processes go by, as variables
    chosen: list[str] = field(default_factory=list)  # those of them that the user has set

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://{host_and_port(self.host, self.ports['api'])}"

    @property
    def mlflow_url(self) -> str:
        """Where MLflow answers."""
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    @property
    def ray_address(self) -> str:
        """Where the Ray head answers."""
        return f"127.0.0.1:{self.ports['ray']}"


def load(home: Path) -> StackRecord | None:
    """The record, or None where nothing was ever started. Raises StackError where the file is damaged."""
    path = home / "stack.json"
    try:
        value = json.loads(path.read_text())
        processes = {name: ProcessRecord(**process) for name, process in value.pop("processes").items()}
        return StackRecord(**value, processes=processes)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StackError(f"{path} is damaged ({error!r}); end what it names by hand, then delete it") from error


def save(home: Path, record: StackRecord) -> None:
    """Write the record so that a reader, or whoever comes after a loss of power, sees the old one or the new one."""
    write_atomically(home / "stack.json", json.dumps(asdict(record), indent=2), private=True)


@contextlib.contextmanager
def locked(home: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the home folder's lock: one `up` or `down` at a time. The kernel frees it when its holder dies."""
    private_home(home, OURS)
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    (home / "stack.lock").touch(mode=0o600)
    with (home / "stack.lock").open("w") as file:
        said = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise StackError("another `cbam up` or `cbam down` is still at work") from error
                if not said:
                    waiting()
                    said = True
                time.sleep(0.1)
        yield
