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
from workers.protocol.storage import ExperimentFolder


def main() -> None:
    """Print the ratio."""
    parser = training_parser(__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpus", action="store_true", help="a GPU for each worker")
    parser.add_argument("--dataset", choices=("digits", "synthetic"), default="digits")
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


def images_per_second(
    options: argparse.Namespace, storage: Path, name: str, *, workers: int, torchrun: bool = False
) -> float:
    """Train once on so many workers, started one by one or by torchrun."""
    spec = storage / f"{name}.yaml"
    spec.write_text(yaml.safe_dump(_spec(options, workers)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    training = ["-m", "workers", str(spec), "--storage", str(storage), "--id", name]
    if torchrun:
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={workers}", f"--master-port={port}"]
        ranks = [_start([*launcher, *training], {})]
    else:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(workers)}
        ranks = [_start(training, meeting | {"RANK": str(n), "LOCAL_RANK": str(n)}) for n in range(workers)]
    codes = [rank.wait() for rank in ranks]
    if any(codes):
        raise SystemExit(f"{name} has failed")
    record = json.loads(ExperimentFolder(storage, name).attempt(1).result.read_text())
    return float(record["summary"]["images_per_second"])


def _start(command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL)


def _spec(options: argparse.Namespace, workers: int) -> dict[str, object]:
    return {
        "name": "benchmark",
        "model": {"backbone": options.backbone, "attention": {"type": options.attention}},
        "data": {"dataset": options.dataset, "image_size": options.image_size},
        "train": recipe_of(options) | {"epochs": options.epochs},
        "resources": {"workers": workers, "gpus_per_worker": int(options.gpus)},
    }


if __name__ == "__main__":
    main()
