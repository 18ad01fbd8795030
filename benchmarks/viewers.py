"""What a viewer of a log costs the API: its CPU time with one viewer of a growing log, and with a hundred.

The server is a process of its own, the log grows by ten lines a second, and every viewer must have seen every line.
Budget: a hundred viewers cost at most 25 times what one does beyond an idle server.

    python -m benchmarks.viewers [--seconds 10] [--viewers 100]
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil

from service.database.engine import Database
from service.database.lease import Leadership
from service.dispatcher.store import DispatcherStore
from service.domain.states import Move, State
from service.settings import Settings
from tests.support.ports import free_port
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder

BUDGET = 25.0
LINES_A_SECOND = 10


def main() -> int:
    """Measure and print; 1 where the budget is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--viewers", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cbam-bench-") as folder:
        settings = Settings(home=Path(folder), database_url="", port=free_port())
        with served(settings) as server:
            cost = {count: watched(settings, server, count, arguments.seconds) for count in (0, 1, arguments.viewers)}
    for count, share in cost.items():
        print(f"{count:>5} viewers: {share:7.2%} of one core")
    ratio = (cost[arguments.viewers] - cost[0]) / max(cost[1] - cost[0], 1e-4)
    print(f"{arguments.viewers} viewers / one viewer: × {ratio:.1f} (budget {BUDGET})")
    return int(ratio > BUDGET)


def watched(settings: Settings, server: psutil.Process, viewers: int, seconds: float) -> float:
    """CPU seconds of the server for each second, while so many watch one experiment."""
    database = Database(settings.database_url)
    leadership = Leadership(database, holder=f"bench {viewers}", seconds=3600)
    wait_until(leadership.renew, "the lease")
    dispatcher_store = DispatcherStore(database, leadership, backoff_seconds=0)
    answer = httpx2.post(f"{settings.url}/v1/experiments", json=spec().model_dump(mode="json")).raise_for_status()
    dispatcher_store.claim(dispatcher_store.queue()[0], 1)
    row = next(row for row, _ in dispatcher_store.live() if row.id == answer.json()["id"])
    dispatcher_store.apply(row, Move(State.RUNNING))
    log = ExperimentFolder(settings.storage_root, row.id).attempt(1).log(0)
    log.parent.mkdir(parents=True)
    lines = int(seconds * LINES_A_SECOND)
    try:
        return asyncio.run(_watch(f"{settings.url}/v1/experiments/{row.id}/logs/stream", log, server, (viewers, lines)))
    finally:
        leadership.release()
        database.close()


async def _watch(url: str, log: Path, server: psutil.Process, size: tuple[int, int]) -> float:
    viewers, lines = size
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=60, limits=limits) as client:
        watching = [asyncio.create_task(_read(client, url, lines)) for _ in range(viewers)]
        with log.open("a") as file:
            print("line 0", file=file, flush=True)
            await asyncio.sleep(2)  # all are connected, and the first second is not counted
            before, begin = server.cpu_times(), time.perf_counter()
            for number in range(1, lines):
                print(f"line {number}", file=file, flush=True)
                await asyncio.sleep(1 / LINES_A_SECOND)
        await asyncio.gather(*watching)
        after, end = server.cpu_times(), time.perf_counter()
    return float(after.user + after.system - before.user - before.system) / (end - begin)


async def _read(client: httpx2.AsyncClient, url: str, lines: int) -> None:
    seen = 0
    async with client.stream("GET", url) as answer:
        async for line in answer.aiter_lines():
            seen += line.startswith("data: line")
            if seen == lines:
                return


@contextmanager
def served(settings: Settings) -> Iterator[psutil.Process]:
    """The API in a process of its own."""
    environment = os.environ | {"CBAM_HOME": str(settings.home), "CBAM_PORT": str(settings.port)}
    command = [sys.executable, "-m", "service.api"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _answers(settings.url), "the API", seconds=90)
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz").is_success
    except httpx2.HTTPError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())
