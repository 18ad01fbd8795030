"""A PostgreSQL server for tests: its own folder and port, gone at the end, and no other cluster touched."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from tests.support.ports import free_port
from tests.support.waiting import wait_until

REQUIRED = os.environ.get("CBAM_REQUIRE_POSTGRES") == "1"
DEBIANS = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, or None where PostgreSQL is not installed."""
    folders = sorted(DEBIANS.glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    folders += [Path(found).parent for found in [shutil.which("initdb")] if found]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class PostgresServer:
    """One server, that can be killed and started again on the same data."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.folder = folder
        self.bin = bin_folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.identity = _unprivileged(folder)

    def url(self, database: str) -> str:
        """The URL of one of its databases, as an operator would set it."""
        return f"postgresql://cbam@127.0.0.1:{self.port}/{database}"

    def initialise(self) -> None:
        """Make the data folder."""
        subprocess.run(
            [
                *(str(self.bin / "initdb"), f"--pgdata={self.folder / 'data'}", "--no-sync", "--auth=trust"),
                *("--username=cbam", "--encoding=UTF8", "--locale=C.UTF-8"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            **self.identity,
        )

    def start(self) -> None:
        """Start it in a session of its own, and wait until it answers."""
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "fsync=off"]
        command = [str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command + [word for option in options for word in ("-c", option)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.identity,
            )
        wait_until(self._answers, "PostgreSQL")

    def processes(self) -> list[psutil.Process]:
        """The living processes of the server; none once it is killed."""
        if self.process is None or self.process.poll() is not None:
            return []
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.process.pid)
            return [server, *server.children()]
        return []

    def kill(self) -> None:
        """SIGKILL the server and every process of it, as the loss of its machine would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it and wait for its end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=30)

    def execute(self, statement: sql.Composed | str) -> None:
        """One statement of the administrator, in no transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """A database of its own, as the template is; gives its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        yield self.url(name)
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres_server(bin_folder: Path) -> Iterator[PostgresServer]:
    """A running server."""
    with tempfile.TemporaryDirectory(prefix="cbam-postgres-", ignore_cleanup_errors=True) as name:
        server = PostgresServer(Path(name), bin_folder)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _unprivileged(folder: Path) -> dict[str, Any]:
    """How to start its programs: PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": folder}
