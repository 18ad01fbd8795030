"""The local stack: a Ray head, an MLflow server, the API and the dispatcher, each a process that survives the others.

`up` starts what is missing and waits until all of it works; `down` stops what `up` started and nothing else. Which
processes those are is in `stack.json` of the home folder.
"""

import errno
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from service.errors import StackError
from service.home import private_folder
from service.redaction import without_login
from service.stack.parts import StackProcess, environment, is_taken, parts, ray_folder
from service.stack.processes import leader, members, start, terminate
from service.stack.record import StackRecord, load, locked, save
from service.stack.settings import StackSettings

LOOK_SECONDS = 0.1
RECOVERY_SECONDS = 10.0  # a living part that does not answer this long is started anew
REMAINS_GRACE_SECONDS = 2.0  # what is left of a broken part has nothing to finish
YOUTH_SECONDS = 60.0  # unless it is this young: an `up` that was interrupted may have just started it
PORTS_TO_TRY = 100
RESTART = "`cbam up --restart` starts it anew with these; experiments that run go on from their checkpoints"


@dataclass(frozen=True)
class PartStatus:
    """How one part is. `detail` is for people."""

    part: StackProcess
    alive: bool
    ok: bool


Report = Callable[[str, str, float], None]  # part, what happens to it, seconds since the beginning


def say_nothing(_part: str, _what: str, _seconds: float) -> None:
    """A report that nobody reads."""


class Stack:
    """The stack of one home folder."""

    def __init__(self, settings: StackSettings | None = None, report: Report = say_nothing) -> None:
        self.settings = settings or StackSettings()
        self.report = report
        self.began = time.monotonic()

    def up(self, *, restart: bool = False) -> StackRecord:
        """Start what is missing, wait until everything works. Raises StackError where something does not come.

        What runs keeps its settings. Where the user wants others, that is a StackError too, unless all is to `restart`.
        """
        self.began = time.monotonic()
        with locked(self.settings.home, lambda: self._say("stack", "waits for another `cbam up` or `cbam down`")):
            record = load(self.settings.home) or StackRecord()
            self._agree_on_settings(record, restart=restart)
            self._choose_ports(record)
            self._end_broken(record)
            missing = [part for part in parts(self.settings, record) if part.name not in record.processes]
            for part in missing:
                self._start(part, record)
            self._wait(record, started={part.name for part in missing})
        return record

    def down(self) -> list[str]:
        """Stop what `up` started; returns the names of what was running."""
        self.began = time.monotonic()
        if not self.settings.home.exists():
            return []
        with locked(self.settings.home, lambda: self._say("stack", "waits for another `cbam up` or `cbam down`")):
            record = load(self.settings.home)
            if record is None:
                return []
            return self._end(record)

    def status(self) -> list[PartStatus]:
        """How each part is; empty where the stack was never started."""
        record = load(self.settings.home)
        if record is None or set(record.ports) != set(self.settings.wanted_ports()):
            return []
        found = []
        for part in parts(self.settings, record):
            alive = leader(record.processes.get(part.name)) is not None
            found.append(PartStatus(part, alive, alive and self._answers(part, record)))
        return found

    def is_running(self) -> bool:
        """Whether any part runs."""
        return any(status.alive for status in self.status())

    def _end(self, record: StackRecord) -> list[str]:
        running = self._running(record)
        self._stop(record, list(record.processes), grace_seconds=self.settings.stop_grace_seconds)
        shutil.rmtree(ray_folder(self.settings), ignore_errors=True)
        record.processes.clear()
        save(self.settings.home, record)
        return running

    def _running(self, record: StackRecord) -> list[str]:
        return [name for name, process in record.processes.items() if members(process, record.stack_id)]

    def _agree_on_settings(self, record: StackRecord, *, restart: bool) -> None:
        """Keep what a running stack goes by, in what the user leaves open; restart it where that is wanted."""
        if self._running(record):
            wanted = self.settings.taken()
            others = [
                name
                for name in self.settings.chosen()
                if record.settings and record.settings.get(name, "") != wanted[name]
            ]
            if others and not restart:
                lines = [
                    f"  {name}: {without_login(record.settings.get(name, '')) or '(none)'}, and now "
                    f"{without_login(wanted[name]) or '(none)'}"
                    for name in others
                ]
                raise StackError("\n".join(["the stack runs with other settings:", *lines, RESTART]))
            if restart:
                self._end(record)
            elif not record.settings:  # a version that noted none has started it
                return
            else:
                self.settings = self.settings.keeping({name: record.settings[name] for name in record.chosen})
        record.settings, record.chosen = self.settings.taken(), self.settings.chosen()

    def _choose_ports(self, record: StackRecord) -> None:
        """Keep the ports of a running stack; else take what the user insists on, the default, or the next free one."""
        wanted = self.settings.wanted_ports()
        if self._running(record):
            for name, (port, insisted) in wanted.items():
                if insisted and record.ports[name] != port:
                    raise StackError(f"{name} runs on port {record.ports[name]}, not {port}; `cbam down` first")
            return
        record.host = self.settings.host
        record.processes.clear()
        for name, (port, insisted) in wanted.items():
            host = record.host if name == "api" else "127.0.0.1"
            first = port if insisted else record.ports.get(name, port)
            record.ports[name] = first if insisted else _next_free(first, host, set(record.ports.values()))
            if insisted and not _is_free(first, host):
                raise StackError(f"port {first} for {name} is taken; choose another, or end what listens there")

    def _end_broken(self, record: StackRecord) -> None:
        """End what is left of a part whose leader died, and a part that lives but has not answered for a while."""
        deadline = time.monotonic() + RECOVERY_SECONDS
        broken: list[str] = []
        for part in parts(self.settings, record):
            process = record.processes.get(part.name)
            while (led := leader(process)) is not None and not self._answers(part, record):
                if part.through in broken or time.time() - led.create_time() < YOUTH_SECONDS:
                    break
                if time.monotonic() > deadline:
                    self._say(part.name, "does not answer and is started anew")
                    broken.append(part.name)
                    break
                time.sleep(LOOK_SECONDS)
            if process is not None and leader(process) is None:
                broken.append(part.name)
        self._stop(record, broken, grace_seconds=REMAINS_GRACE_SECONDS)
        for name in broken:
            del record.processes[name]

    def _start(self, part: StackProcess, record: StackRecord) -> None:
        port = record.ports.get(part.name)
        if port is not None and is_taken(port, record.host if part.name == "api" else "127.0.0.1"):
            raise StackError(f"port {port} of {part.name} was taken by somebody else meanwhile; `cbam down`, `cbam up`")
        home = self.settings.home
        if part.name == "ray":
            folder = ray_folder(self.settings)
            shutil.rmtree(folder, ignore_errors=True)  # the logs of the head before this one
            private_folder(folder)  # Ray opens its own to everybody
        (home / "mlflow").mkdir(parents=True, exist_ok=True)
        record.processes[part.name] = start(
            part.command,
            environment=environment(self.settings, record, os.environ),
            cwd=home,
            log=self.settings.logs / f"{part.name}.log",
        )
        save(home, record)
        self._say(part.name, "starts")

    def _wait(self, record: StackRecord, started: set[str]) -> None:
        """Wait until every part answers; raises StackError with the end of the log of one that does not."""
        waiting = list(parts(self.settings, record))
        deadline = time.monotonic() + self.settings.start_patience_seconds
        while waiting:
            for part in list(waiting):
                if self._answers(part, record):
                    self._say(part.name, "ready")
                    waiting.remove(part)
                elif leader(record.processes[part.name]) is None and part.name not in started:
                    self._stop(record, [part.name], grace_seconds=REMAINS_GRACE_SECONDS)
                    self._start(part, record)
                    started.add(part.name)
                elif leader(record.processes[part.name]) is None:
                    raise StackError(f"{part.title} ended while it started.\n{self._log_tail(part)}")
                elif time.monotonic() > deadline:
                    raise StackError(f"{part.title} does not answer.\n{self._log_tail(part)}")
            time.sleep(LOOK_SECONDS if waiting else 0)

    def _answers(self, part: StackProcess, record: StackRecord) -> bool:
        return part.answers(members(record.processes.get(part.name), record.stack_id))

    def _stop(self, record: StackRecord, names: list[str], *, grace_seconds: float) -> None:
        """End all sessions at once, and look again until nothing is left: a dying Ray head may still start a worker."""
        deadline = time.monotonic() + 3 * grace_seconds
        while groups := {name: group for name in names if (group := members(record.processes[name], record.stack_id))}:
            for name in groups:
                self._say(name, "stops")
            terminate(groups.values(), grace_seconds=grace_seconds)
            if time.monotonic() > deadline:
                left = [process.pid for group in groups.values() for process in group if process.is_running()]
                raise StackError(f"these processes cannot be ended: {left}")

    def _log_tail(self, part: StackProcess, lines: int = 15) -> str:
        path = self.settings.logs / f"{part.name}.log"
        text = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
        return "\n".join([f"The end of {path}:", *(f"  {line}" for line in text)])

    def _say(self, part: str, what: str) -> None:
        self.report(part, what, time.monotonic() - self.began)


def _is_free(port: int, host: str) -> bool:
    """Whether a server could listen there now, as servers do it: ports of closed connections count as free."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise StackError(f"cannot listen on {host}: {error}") from error
    return True


def _next_free(first: int, host: str, chosen: set[int]) -> int:
    for port in range(first, min(first + PORTS_TO_TRY, 65536)):
        if (port == first or port not in chosen) and _is_free(port, host):
            return port
    raise StackError(f"no free port from {first} on")


def memory_bytes(record: StackRecord) -> int:
    """Resident memory of everything that runs."""
    groups = (members(process, record.stack_id) for process in record.processes.values())
    return sum(process.memory_info().rss for group in groups for process in group if psutil.pid_exists(process.pid))
