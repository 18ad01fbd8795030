"""Processes that outlive their starter: started in a session of their own, found again by it, ended with it.

A session id is the strongest mark a process carries: children inherit it, being reparented to init does not change it,
and setting a process title (which Ray does, wiping the environment) leaves it alone. The kernel does not give its
number to another process while one member lives.
"""

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from service.stack.record import ProcessRecord

MARK = "CBAM_STACK_ID"
CLOCK_SLACK_SECONDS = 2.0  # the kernel's boot time, from which births are counted, moves with the clock
KILL_SECONDS = 5.0  # from SIGKILL to the end, which only the kernel can delay
_children: list[subprocess.Popen[bytes]] = []  # kept so that they can be reaped where the starter stays


def start(command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, log: Path) -> ProcessRecord:
    """Start a session leader that writes to `log`, and does not mind the end of this process or of its terminal.

    What it writes, and what its children write, is for its owner alone.
    """
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.touch(mode=0o600)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    _children.append(child)
    return ProcessRecord(child.pid, psutil.Process(child.pid).create_time())


def leader(record: ProcessRecord | None) -> psutil.Process | None:
    """The process of the record, if it lives."""
    if record is None:
        return None
    try:
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.create_time) > CLOCK_SLACK_SECONDS or _is_over(process):
            return None
    except psutil.Error:
        return None
    return process


def members(record: ProcessRecord | None, stack_id: str) -> list[psutil.Process]:
    """Every living process of the record's session, the leader included, whoever is its parent now."""
    if record is None:
        return []
    led = leader(record) is not None
    found = []
    for process in psutil.process_iter():
        try:
            if (
                os.getsid(process.pid) == record.pid
                and not _is_over(process)
                and (led or _is_marked(process, stack_id))
            ):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def terminate(groups: Iterable[Sequence[psutil.Process]], *, grace_seconds: float) -> None:
    """End sessions: SIGTERM to what leads each, or to all of it where the leader is gone; SIGKILL to what is left."""
    everyone: list[psutil.Process] = []
    for group in groups:
        leaders = [process for process in group if os_session(process) == process.pid]
        for process in leaders or group:
            _signal(process, signal.SIGTERM)
        everyone += group
    _, left = psutil.wait_procs(everyone, timeout=grace_seconds)
    for process in left:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=KILL_SECONDS)
    _children[:] = [child for child in _children if child.poll() is None]


def os_session(process: psutil.Process) -> int:
    """The process's session, 0 where it is gone."""
    try:
        return os.getsid(process.pid)
    except OSError:
        return 0


def _signal(process: psutil.Process, signum: signal.Signals) -> None:
    try:
        process.send_signal(signum)
    except psutil.NoSuchProcess:
        return


def _is_over(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_ZOMBIE)


def _is_marked(process: psutil.Process, stack_id: str) -> bool:
    """Whether a process of a leaderless session is ours. An empty environment was wiped by a title, as Ray sets it."""
    try:
        environment = process.environ()
    except (psutil.Error, OSError):
        return False
    return not environment or environment.get(MARK) == stack_id
