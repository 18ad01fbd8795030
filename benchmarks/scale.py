"""How the service grows: the first page of the list, and one tick of the dispatcher, against the number of rows.

Databases of every size are filled first; then they take turns, so that a busy machine is busy for all of them. The
cluster is the in-memory one that the tests use: what is measured is ours, not Ray's. Budget: flat, at most 1.5, for the
list and the tick against what is stored and queued, and for the tick per experiment against what runs.

    python -m benchmarks.scale [--rounds 15] [--running 1000] [--postgresql]
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import insert, inspect

from cbam_core.spec import ExperimentSpec
from service.cluster.base import Node
from service.cluster.in_memory import InMemoryCluster
from service.database.engine import Database
from service.database.models.base import Base
from service.database.models.experiments import Experiment
from service.dispatcher.dispatcher import Dispatcher
from service.domain.filters import Filter, Sort
from service.domain.states import State
from service.domain.values import new_id, utc_now
from service.experiments.store import ExperimentStore
from service.settings import Settings
from tests.support.postgresql import PostgresServer, postgres_server, programs

BUDGET = 1.5
STORED = (100, 10_000, 100_000)
QUEUED = (200, 10_000)  # the smaller fills one window of the queue
FEW_RUNNING = 100
ONE_PLACE = 1.0  # free CPUs: every tick looks at its window of the queue, and starts one
SPEC = ExperimentSpec.model_validate(
    {
        "name": "scale",
        "model": {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}},
        "data": {"dataset": "digits", "image_size": 8},
        "train": {"epochs": 100_000, "global_batch_size": 64},
    }
)
BATCH = 2000
LISTS = (
    ("by priority", Filter(), Sort.PRIORITY_DOWN),
    ("by name", Filter(), Sort.NAME),
    ("a common tag", Filter(tags=[("common", "yes")]), Sort.NEWEST),
    ("a rare tag", Filter(tags=[("rare", "yes")]), Sort.NEWEST),
)


@dataclass(frozen=True)
class Bench:
    """One database with its store and its dispatcher."""

    database: Database
    store: ExperimentStore
    dispatcher: Dispatcher


def main() -> int:
    """Measure and print; 1 where a budget is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--running", type=int, default=1000)
    parser.add_argument("--postgresql", action="store_true", help="on a private PostgreSQL server instead of SQLite")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(_postgresql())) if arguments.postgresql else None
        return int(max(measure(server, arguments.rounds, arguments.running)) > BUDGET)


def measure(server: PostgresServer | None, rounds: int, running: int) -> list[float]:
    """All ratios, printed as they come."""
    ratios: list[float] = []
    with benches(server, stored=STORED) as by_size:
        ratios += compare("list, first page", {n: _page(b, Filter()) for n, b in by_size.items()}, rounds)
        failed = Filter(states=[State.FAILED])
        ratios += compare("list, one state", {n: _page(b, failed) for n, b in by_size.items()}, rounds)
        for what, where, sort in LISTS:
            ratios += compare(f"list, {what}", {n: _page(b, where, sort) for n, b in by_size.items()}, rounds)
        ratios += compare("tick, stored", {n: b.dispatcher.tick for n, b in by_size.items()}, rounds)
    with benches(server, queued=QUEUED) as by_size:
        ratios += compare("tick, queued", {n: b.dispatcher.tick for n, b in by_size.items()}, rounds)
    with benches(server, queued=QUEUED, free=ONE_PLACE) as by_size:
        ratios += compare("tick, one starts", {n: b.dispatcher.tick for n, b in by_size.items()}, rounds)
    with benches(server, running=(FEW_RUNNING, running)) as by_size:
        ticks = {n: b.dispatcher.tick for n, b in by_size.items()}
        ratios += compare("tick per running", ticks, max(3, rounds // 3), each=True)
    return ratios


def _page(bench: Bench, where: Filter, sort: Sort = Sort.NEWEST) -> Callable[[], object]:
    return lambda: bench.store.page(where, sort=sort)


def _postgresql() -> Path:
    found = programs()
    if found is None:
        raise SystemExit("PostgreSQL is not installed")
    return found


def compare(what: str, calls: Mapping[int, Callable[[], object]], rounds: int, *, each: bool = False) -> list[float]:
    """Call all in turns, print the median of each, and return the ratios to the smallest."""
    times: dict[int, list[float]] = {size: [] for size in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for size, call in calls.items():
            begin = time.perf_counter()
            call()
            times[size].append((time.perf_counter() - begin) / (size if each else 1))
    medians = {size: statistics.median(seconds) for size, seconds in times.items()}
    smallest = medians[min(medians)]
    for size, median in medians.items():
        print(
            f"{what:<18} {size:>7,} {1000 * median:9.2f} ms   × {median / smallest:.2f}  (budget {BUDGET})", flush=True
        )
    return [median / smallest for median in medians.values()]


@contextmanager
def benches(
    server: PostgresServer | None,
    *,
    stored: tuple[int, ...] = (),
    queued: tuple[int, ...] = (),
    running: tuple[int, ...] = (),
    free: float = 0.0,
) -> Iterator[dict[int, Bench]]:
    """One bench for each size, with so many free CPUs at every look; where experiments run, with room for them all."""
    with ExitStack() as stack:
        made: dict[int, Bench] = {}
        for size in stored or queued or running:
            url = stack.enter_context(server.database()) if server else ""
            bench = stack.enter_context(_bench(url, free=None if running else free))
            fill(bench.database, size, State.FAILED if stored else State.QUEUED)
            for _ in range(0, size if running else 0, 100):
                bench.dispatcher.tick()
            made[size] = bench
        gc.freeze()  # as a dispatcher does before its first tick
        yield made


@contextmanager
def _bench(url: str, *, free: float | None) -> Iterator[Bench]:
    """An empty database, and a cluster with so many free CPUs whatever runs there, or with room for everything."""
    with tempfile.TemporaryDirectory(prefix="cbam-bench-") as folder:
        settings = Settings(home=Path(folder), database_url=url)
        database = Database(settings.database_url)
        database.migrate()
        cluster = InMemoryCluster(nodes=(Node("node", 1e6, 0.0, 1e6 if free is None else free, 0.0),))
        if free is not None:
            cluster._free_nodes = lambda: cluster.nodes  # type: ignore[method-assign]
        yield Bench(database, ExperimentStore(database), Dispatcher(database, cluster, settings))
        database.close()


def fill(database: Database, count: int, state: State) -> None:
    """Write rows as if they had been submitted one second after the other."""
    defaults = {
        column.key: column.default.arg
        for column in inspect(Experiment).columns
        if column.default is not None and column.default.is_scalar
    }
    begin = utc_now() - timedelta(seconds=count)
    document = SPEC.model_dump(mode="json")
    for first in range(0, count, BATCH):
        rows = [
            defaults
            | {
                "id": new_id(),
                "name": f"scale-{index}",
                "project": "scale",
                "tags": {"common": "yes"} | ({"rare": "yes"} if (count - index) % (count // 10) == 0 else {}),
                "owner": "local",
                "priority": index % 7,
            }
            | {"spec": document, "state": state, "progress": {}, "summary": {}, "tracking_closed": True}
            | {"created_at": begin + timedelta(seconds=index), "queued_at": begin + timedelta(seconds=index)}
            for index in range(first, min(first + BATCH, count))
        ]
        labels = [
            {"experiment_id": row["id"], "key": key, "value": value, "created_at": row["created_at"]}
            for row in rows
            for key, value in row["tags"].items()
        ]
        with database.writing() as session:
            session.execute(insert(Base.metadata.tables["experiments"]), rows)
            session.execute(insert(Base.metadata.tables["labels"]), labels)


if __name__ == "__main__":
    raise SystemExit(main())
