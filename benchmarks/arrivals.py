"""How long callers wait who come at their own pace (an open loop): submitting, and the first page of the list.

Requests are sent when they are due, however many are still unanswered, and the wait is counted from when they were due:
a server that falls behind cannot slow its callers down and so look better than it is. Submissions go to the service and
to the bare FastAPI endpoint of `benchmarks.submit`; the list is asked of a service with few and with many rows.

    python -m benchmarks.arrivals [--rounds 3] [--seconds 5] [--per-second 20] [--stored 20000]
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

import httpx2

from benchmarks.scale import fill
from benchmarks.submit import SPEC, served
from service.database.engine import Database
from service.domain.states import State

FEW = 100
BUDGETS = {"submit": 2.0, "list": 1.5}  # half the submissions a second is twice the wait
CREATE = ("POST", "/v1/experiments", json.dumps(SPEC))
LIST = ("GET", "/v1/experiments?limit=50", None)


def main() -> int:
    """Measure in turns and print the ratios; 1 where a budget is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--per-second", type=float, default=20.0)
    parser.add_argument("--stored", type=int, default=20_000)
    arguments = parser.parse_args()
    pace = (arguments.per_second, arguments.seconds)

    def stored(count: int) -> AbstractContextManager[str]:
        return served("service.api.app:create_app", before=lambda url: _fill(url, count))

    with served("benchmarks.submit:bare") as bare, stored(FEW) as few, stored(arguments.stored) as many:
        waits: dict[str, list[list[float]]] = {name: [] for name in ("bare", "service", "few", "many")}
        for _ in range(arguments.rounds):
            waits["few"].append(asyncio.run(arrivals(few, LIST, *pace)))
            waits["many"].append(asyncio.run(arrivals(many, LIST, *pace)))
            waits["bare"].append(asyncio.run(arrivals(bare, CREATE, *pace)))
            waits["service"].append(asyncio.run(arrivals(many, CREATE, *pace)))
    submit = report("submit", waits, "bare", "service")
    listing = report("list", waits, "few", "many")
    return int(submit > BUDGETS["submit"] or listing > BUDGETS["list"])


def _fill(database_url: str, count: int) -> None:
    database = Database(database_url)
    database.migrate()
    fill(database, count, State.SUCCEEDED)
    database.close()


async def arrivals(url: str, call: tuple[str, str, str | None], per_second: float, seconds: float) -> list[float]:
    """The waits of all requests of one turn, in seconds; every one of them must be answered well."""
    method, path, content = call
    headers = {"content-type": "application/json"} if content else {}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, limits=httpx2.Limits()) as client:
        begin = time.perf_counter()

        async def one(due: float) -> float:
            await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
            (await client.request(method, path, content=content)).raise_for_status()
            return time.perf_counter() - begin - due

        return await asyncio.gather(*(one(index / per_second) for index in range(int(per_second * seconds))))


def report(what: str, waits: Mapping[str, list[list[float]]], one: str, other: str) -> float:
    """Print the waits of both, and the median over the turns of the ratio of their medians."""
    for name in (one, other):
        all_waits = sorted(wait for turn in waits[name] for wait in turn)
        middle, late = all_waits[len(all_waits) // 2], all_waits[len(all_waits) * 99 // 100]
        print(f"{what:>7}  {name:>8}: median {middle * 1e3:6.1f} ms   99 of 100 within {late * 1e3:7.1f} ms")
    turns = zip(waits[one], waits[other], strict=True)
    ratio = statistics.median(statistics.median(theirs) / statistics.median(ours) for ours, theirs in turns)
    print(f"{what:>7}  {other} / {one}: {ratio:.2f} (median of the turns; budget {BUDGETS[what]})")
    return ratio


if __name__ == "__main__":
    raise SystemExit(main())
