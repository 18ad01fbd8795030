"""Submissions a second: the service against a bare FastAPI endpoint that inserts the same row. Budget: at least 0.5.

Both are uvicorn processes with one worker over a SQLite file with the same safety (WAL, synchronous=FULL), and take
turns under the same number of clients. The bare endpoint reads the JSON body, checks nothing, and inserts one row.

    python -m benchmarks.submit [--rounds 5] [--seconds 3] [--clients 4]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from fastapi import Depends, FastAPI, Request

from service.database.engine import Database
from service.database.models.experiments import Experiment
from service.domain.values import new_id, utc_now
from service.settings import Settings
from tests.support.ports import free_port
from tests.support.waiting import wait_until

BUDGET = 0.5
SPEC: dict[str, Any] = {
    "name": "submit",
    "model": {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}},
    "data": {"dataset": "digits", "image_size": 16},
    "train": {"epochs": 5, "global_batch_size": 64},
}


def bare() -> FastAPI:
    """The endpoint to compare with."""
    database = Database(Settings().database_url)
    database.migrate()
    app = FastAPI()

    async def body(request: Request) -> dict[str, Any]:
        return dict(await request.json())

    @app.get("/healthz")
    def healthz() -> str:
        return "ok"

    @app.post("/v1/experiments", status_code=201)
    def insert(spec: dict[str, Any] = Depends(body)) -> dict[str, str]:  # noqa: B008
        now = utc_now()
        row = Experiment(id=new_id(), name=spec["name"], project="default", tags={}, priority=0, spec=spec)
        row.state, row.progress, row.summary, row.created_at, row.queued_at = "QUEUED", {}, {}, now, now
        with database.writing() as session:
            session.add(row)
        return {"id": row.id}

    return app


def main() -> int:
    """Measure in turns and print the ratio; 1 where the budget is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=4)
    arguments = parser.parse_args()
    ratios = []
    with served("benchmarks.submit:bare") as plain, served("service.api.app:create_app") as ours:
        for _ in range(arguments.rounds):
            simple = rate(plain, arguments.clients, arguments.seconds)
            full = rate(ours, arguments.clients, arguments.seconds)
            ratios.append(full / simple)
            print(f"bare {simple:7.0f}/s    service {full:7.0f}/s    ratio {full / simple:.2f}", flush=True)
    ratio = statistics.median(ratios)
    print(f"submissions a second / a bare endpoint's: {ratio:.2f} (median of {len(ratios)}; budget {BUDGET})")
    return int(ratio < BUDGET)


def rate(url: str, clients: int, seconds: float) -> float:
    """Accepted submissions a second."""
    accepted = [0] * clients
    content = json.dumps(SPEC)
    end = time.perf_counter() + seconds

    def submit(index: int) -> None:
        with httpx2.Client(headers={"content-type": "application/json"}) as client:
            while time.perf_counter() < end:
                client.post(f"{url}/v1/experiments", content=content).raise_for_status()
                accepted[index] += 1

    threads = [threading.Thread(target=submit, args=(index,)) for index in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(accepted) / (time.perf_counter() - begin)


@contextmanager
def served(factory: str, *, before: Callable[[str], None] = lambda _database_url: None) -> Iterator[str]:
    """The app in a uvicorn process of its own, over a database of its own, prepared by `before`; gives its address."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", factory, "--factory", "--no-access-log", "--log-level=warning"),
        f"--port={port}",
    ]
    with tempfile.TemporaryDirectory(prefix="cbam-bench-") as folder:
        before(f"sqlite:///{folder}/cbam.db")
        unlimited = {"CBAM_RATE_PER_SECOND": "1000000", "CBAM_RATE_BURST": "1000000"}
        environment = os.environ | {"CBAM_HOME": folder, "CBAM_PORT": str(port)} | unlimited
        with subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[1]) as process:
            try:
                wait_until(lambda: _answers(port), factory, seconds=60)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.kill()


def _answers(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/healthz").is_success
    except httpx2.HTTPError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())
