"""How long two CPU workers take to meet, through every way to start them, and what stays beside them meanwhile.

From the call to a finished all-reduce: torchrun; a placement group with two actors, cold, and the same two actors
again, as the service does it; Ray Train's TorchTrainer; and Ray Jobs around two such actors, where `ray[default]` is
installed. This is the table of docs/design/dispatch.md.

    python -m benchmarks.starts [--rounds 3]
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.ports import free_port
from tests.support.ray_head import RAY_ENVIRONMENT, RayHead, ray_head
from tests.support.waiting import wait_until

WORLD = 2
PATIENCE_SECONDS = 180.0
MIB = 2**20
HAS_JOBS = importlib.util.find_spec("aiohttp_cors") is not None
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Start:
    """One start. `processes` and `mib` are beside the two workers and the caller, while the workers stay."""

    seconds: float
    processes: int
    mib: float


def main() -> int:
    """Measure every way in turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--as", dest="role", choices=["rank", "actors", "trainer"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        ROLES[arguments.role](arguments.folder)
        return 0
    os.environ.update(RAY_ENVIRONMENT)
    found: dict[str, list[Start]] = {}
    with ray_head(cpus=WORLD, dashboard=HAS_JOBS) as head:
        for _ in range(arguments.rounds):
            for name, way in WAYS.items():
                if name != "Ray Jobs" or HAS_JOBS:
                    for label, start in way(head):
                        found.setdefault(label, []).append(start)
    for label, starts in found.items():
        seconds, processes, mib = (
            statistics.median(getattr(one, of) for one in starts) for of in Start.__annotations__
        )
        print(f"{label:<32} {seconds:6.2f} s   {processes:3.0f} processes and {mib:6.0f} MiB beside the workers")
    if not HAS_JOBS:
        print("Ray Jobs: not measured, .venv/bin/uv pip install -c requirements.lock --group jobs")
    return 0


def meet(folder: str, rank: int, port: int) -> None:
    """One rank: meet the other, all-reduce, say so, and stay until told to go."""
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    _reduce_and_stay(Path(folder), rank)
    distributed.destroy_process_group()


def _reduce_and_stay(folder: Path, rank: int) -> None:
    import torch
    from torch import distributed

    value = torch.ones(1)
    distributed.all_reduce(value)
    assert value.item() == WORLD
    (folder / f"met-{rank}").write_text(str(os.getpid()))
    wait_until((folder / "go").exists, "the word to go", seconds=PATIENCE_SECONDS)


def as_rank(folder: Path) -> None:
    """What torchrun starts."""
    from torch import distributed

    distributed.init_process_group("gloo")
    _reduce_and_stay(folder, distributed.get_rank())
    distributed.destroy_process_group()


def as_actors(folder: Path) -> None:
    """What Ray Jobs starts: a driver with a placement group and two actors."""
    import ray

    ray.init(log_to_driver=False)
    actors = _actors()
    _let_meet(actors, folder)


def as_trainer(folder: Path) -> None:
    """A driver with a TorchTrainer."""
    import ray
    from ray.train import RunConfig, ScalingConfig, get_context
    from ray.train.torch import TorchTrainer

    ray.init(log_to_driver=False)
    (folder / "called").write_text(repr(time.time()))
    TorchTrainer(
        lambda: _reduce_and_stay(folder, get_context().get_world_rank()),
        scaling_config=ScalingConfig(num_workers=WORLD),
        run_config=RunConfig(storage_path=str(folder / "results")),
    ).fit()


def _actors() -> list[Any]:
    import ray
    from ray.util import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([{"CPU": 1}] * WORLD, strategy="PACK")

    class Worker:
        def meet(self, folder: str, rank: int, port: int) -> None:
            meet(folder, rank, port)

    return [
        ray.remote(Worker)
        .options(
            num_cpus=1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        )
        .remote()
        for rank in range(WORLD)
    ]


def _let_meet(actors: list[Any], folder: Path) -> None:
    import ray

    port = free_port()
    ray.get([actor.meet.remote(str(folder), rank, port) for rank, actor in enumerate(actors)])


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cbam-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _observe(folder: Path, head: RayHead, began: float, before: set[int]) -> Start:
    """Wait until the workers have met, count what is beside them, and let them go."""
    files = [folder / f"met-{rank}" for rank in range(WORLD)]
    wait_until(lambda: all(one.exists() for one in files), "the workers to meet", seconds=PATIENCE_SECONDS)
    called = folder / "called"
    began = float(called.read_text()) if called.exists() else began
    seconds = max(one.stat().st_mtime for one in files) - began
    workers = {int(one.read_text()) for one in files}
    beside = [one for one in _processes(head) if one.pid not in workers | before]
    total = 0
    for one in beside:
        with suppress(psutil.Error):
            total += one.memory_info().rss
    (folder / "go").touch()
    return Start(seconds, len(beside), total / MIB)


def _processes(head: RayHead) -> list[psutil.Process]:
    """Of the head, and of this process; Ray's idle workers, which it starts in advance, count for nobody."""
    found = [*head.process.children(recursive=True), *psutil.Process().children(recursive=True)]
    return [one for one in set(found) if "ray::IDLE" not in _title(one)]


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _pids(head: RayHead) -> set[int]:
    return {one.pid for one in _processes(head)}


def _command(role: str, folder: Path) -> list[str]:
    return ["-m", "benchmarks.starts", f"--as={role}", f"--folder={folder}"]


def through_torchrun(head: RayHead) -> Iterator[tuple[str, Start]]:
    """The launcher that comes with torch."""
    with _folder() as folder:
        before, began = _pids(head), time.time()
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORLD}"]
        with subprocess.Popen([*command, *_command("rank", folder)], cwd=ROOT, stderr=subprocess.DEVNULL):
            yield "torchrun", _observe(folder, head, began, before)


def through_actors(head: RayHead) -> Iterator[tuple[str, Start]]:
    """As the service does it: from a driver that is connected already, cold, and then the same actors again."""
    import ray

    ray.init(address=head.address, log_to_driver=False, configure_logging=False)
    try:
        actors: list[Any] = []
        for label in ("placement group + 2 actors, cold", "the same two actors again, warm"):
            with _folder() as folder:
                before, began = _pids(head), time.time()
                actors = actors or _actors()
                before |= {os.getpid()}
                thread = threading.Thread(target=_let_meet, args=(actors, folder))
                thread.start()
                yield label, _observe(folder, head, began, before)
                thread.join()
    finally:
        ray.shutdown()


def through_trainer(head: RayHead) -> Iterator[tuple[str, Start]]:
    """From `TorchTrainer.fit`, called by a driver that is connected already."""
    with _folder() as folder:
        before = _pids(head)
        environment = os.environ | {"RAY_ADDRESS": head.address}
        command = [sys.executable, *_command("trainer", folder)]
        with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            yield "Ray Train TorchTrainer", _observe(folder, head, time.time(), before)


def through_jobs(head: RayHead) -> Iterator[tuple[str, Start]]:
    """Ray Jobs around the two actors: from the submission."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(f"http://127.0.0.1:{head.dashboard_port}")
    with _folder() as folder:
        before, began = _pids(head), time.time()
        entrypoint = " ".join([sys.executable, *_command("actors", folder)])
        job = client.submit_job(entrypoint=entrypoint, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
        yield "Ray Jobs around 2 actors", _observe(folder, head, began, before)
        wait_until(lambda: client.get_job_status(job).is_terminal(), "the job to end", seconds=PATIENCE_SECONDS)


Way = Callable[[RayHead], Iterator[tuple[str, Start]]]
WAYS: dict[str, Way] = {
    "torchrun": through_torchrun,
    "actors": through_actors,
    "TorchTrainer": through_trainer,
    "Ray Jobs": through_jobs,
}
ROLES: dict[str, Callable[[Path], None]] = {"rank": as_rank, "actors": as_actors, "trainer": as_trainer}


if __name__ == "__main__":
    raise SystemExit(main())
