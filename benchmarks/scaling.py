"""Images/s of one training on 2 workers against 1, of the same global batch: how much of the second one arrives.

    python -m benchmarks.scaling [--rounds 3]

Every training is `python -m workers` as a user starts it, one process per rank on one core each; they take turns, and
each says its images/s, all ranks together, over all of its steps but the first.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.loop import recipe_of, training_parser
from workers.storage import ExperimentFolder


def main() -> None:
    """Print the ratio."""
    parser = training_parser(__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpus", action="store_true", help="a GPU for each worker")
    options = parser.parse_args()
    speeds: dict[int, list[float]] = {1: [], options.workers: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for workers, values in speeds.items():
                values.append(images_per_second(options, Path(folder), f"{workers}-{number}", workers=workers))
    for workers, values in speeds.items():
        print(f"{workers} worker(s)      {statistics.median(values):8.1f} images/s")
    ratio = statistics.median(many / one for one, many in zip(speeds[1], speeds[options.workers], strict=True))
    print(f"{options.workers} workers / 1     {ratio:.3f}  ({ratio / options.workers:.0%} of {options.workers})")


def images_per_second(options: argparse.Namespace, storage: Path, name: str, *, workers: int) -> float:
    """Train once on so many workers."""
    spec = storage / f"{name}.yaml"
    spec.write_text(yaml.safe_dump(_spec(options, workers)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "workers", str(spec), "--storage", str(storage), "--id", name]
    ranks = []
    for rank in range(workers):
        place = {"RANK": str(rank), "WORLD_SIZE": str(workers), "LOCAL_RANK": str(rank)}
        ranks.append(subprocess.Popen(command, env=os.environ | meeting | place, stdout=subprocess.DEVNULL))
    codes = [rank.wait() for rank in ranks]
    if any(codes):
        raise SystemExit(f"{name} has failed")
    record = json.loads(ExperimentFolder(storage, name).attempt(1).result.read_text())
    return float(record["summary"]["images_per_second"])


def _spec(options: argparse.Namespace, workers: int) -> dict[str, object]:
    return {
        "name": "benchmark",
        "model": {"backbone": options.backbone, "attention": {"type": options.attention}},
        "data": {"dataset": "digits", "image_size": options.image_size},
        "train": recipe_of(options) | {"epochs": options.epochs},
        "resources": {"workers": workers, "gpus_per_worker": int(options.gpus)},
    }


if __name__ == "__main__":
    main()
