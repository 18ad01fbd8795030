"""A cluster in containers, under a name and on ports of its own: what a test may do to it."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.client.client import Client
from service.client.experiment import ExperimentHandle
from service.domain.states import TERMINAL, State
from service.errors import ServiceError
from tests.support.ports import free_port
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "scripts/compose"
PATIENCE_SECONDS = 600.0
EPOCHS = 12  # so many that the harm still meets them where containers train quickly


class ComposeCluster:
    """One project of Compose. Everything is done as a user does it: by scripts/compose, by docker, over HTTP."""

    def __init__(self, name: str, folder: Path, *, workers: int, override: str | None = None, **settings: str) -> None:
        self.name = name
        self.workers = workers
        self.env_file = folder / f"{name}.env"
        self.ports = _ports(folder / f"{name}.ports")
        files = ["docker-compose.yml", *([override] if override else [])]
        self.environment = os.environ | {
            "COMPOSE_PROJECT_NAME": name,
            "COMPOSE_FILE": ":".join(files),
            "CBAM_ENV_FILE": str(self.env_file),
            "CBAM_WORKER_CPUS": "1",
            "CBAM_WORKER_MEMORY": "3g",
            "CBAM_DATA": str(folder / "data"),
            **{key: str(port) for key, port in self.ports.items()},
            **settings,
        }
        for key in ("CBAM_URL", "CBAM_TOKEN", "PYTHONPATH"):
            self.environment.pop(key, None)

    @property
    def url(self) -> str:
        """The API, as it is published."""
        return f"http://127.0.0.1:{self.ports['CBAM_PORT']}"

    @property
    def mlflow_url(self) -> str:
        """MLflow, as it is published."""
        return f"http://127.0.0.1:{self.ports['MLFLOW_PORT']}"

    def script(self, *words: str) -> str:
        """Run scripts/compose; what it prints to standard output."""
        done = subprocess.run(
            [str(COMPOSE), *words], env=self.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
        )
        assert done.returncode == 0, f"scripts/compose {' '.join(words)} ended with {done.returncode}: {done.stdout}"
        return done.stdout

    def up(self) -> float:
        """Start it, and wait until it works; the seconds that took."""
        began = time.monotonic()
        self.script("up", "--workers", str(self.workers))
        return time.monotonic() - began

    def client(self) -> Client:
        """As admin, from outside, with patience for an API that is just being killed."""
        return Client(self.url, self.script("token").strip(), tries=12)

    def containers(self, service: str) -> list[str]:
        """The names of the containers of a service, in the order of their numbers."""
        labels = {"project": self.name, "service": service}
        filters = [f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items()]
        names = docker("ps", "--all", "--format={{.Names}}", *filters).split()
        return sorted(name for name in names if "_run_" not in name and "-run-" not in name)

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in the first container of a service."""
        return docker("exec", self.containers(service)[0], *command, check=check)

    def kill(self, container: str) -> None:
        """SIGKILL to all processes of a container, as a crash would: Docker may then start it again."""
        docker("exec", container, "bash", "-c", "kill -KILL -1", check=False)

    def inspect(self, container: str) -> dict[str, Any]:
        """All that Docker knows of a container."""
        found: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return found

    def starts(self, container: str) -> int:
        """How often Docker has started it again."""
        return int(self.inspect(container)["RestartCount"])

    def is_well(self, container: str) -> bool:
        """Whether it runs, and says that it is healthy."""
        state = self.inspect(container)["State"]
        return state["Status"] == "running" and state["Health"]["Status"] == "healthy"

    def wait_until_well(self, containers: Sequence[str]) -> None:
        """Wait for health: what Docker starts again takes its time."""
        wait_until(lambda: all(map(self.is_well, containers)), f"{containers} to be healthy", seconds=PATIENCE_SECONDS)


def _ports(path: Path) -> dict[str, int]:
    """Free ones; those of before where the folder, and so the cluster, was kept."""
    if not path.exists():
        path.write_text(json.dumps({"CBAM_PORT": free_port(), "MLFLOW_PORT": free_port()}))
    ports: dict[str, int] = json.loads(path.read_text())
    return ports


def remove_leftovers(project: str) -> None:
    """Remove what an interrupted run left of a project: its database has passwords that nobody knows any more."""
    mine = f"--filter=label=com.docker.compose.project={project}"
    for kind, listing in (("container", ["ls", "--all"]), ("network", ["ls"]), ("volume", ["ls"])):
        if found := docker(kind, *listing, "--quiet", mine).split():
            docker(kind, "rm", *([] if kind == "network" else ["--force"]), *found)


def docker(*words: str, check: bool = True) -> str:
    """Run docker; what it prints."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout


def some_epochs(*, epochs: int = EPOCHS, **changes: Any) -> dict[str, Any]:
    """A training on two workers that goes on for a while, the same bits each time, with a checkpoint each epoch."""
    train = {
        "epochs": epochs,
        "global_batch_size": 128,
        "optimizer": {"type": "sgd", "lr": 0.05},
        "deterministic": True,
    }
    return spec_dict(train=train, resources={"workers": 2}, **changes)


def is_there(experiment: ExperimentHandle) -> State:
    """Its state, also while the API is away."""
    try:
        return experiment.refresh().state
    except ServiceError:
        return experiment.state


def reach_epoch(experiment: ExperimentHandle, epoch: int) -> None:
    """Wait until so many epochs are done."""
    wait_until(
        lambda: is_there(experiment) in TERMINAL or experiment.view.progress.epoch >= epoch,
        f"epoch {epoch} of {experiment.id}",
        seconds=PATIENCE_SECONDS,
    )
    assert experiment.state not in TERMINAL, f"{experiment.state}: {experiment.view.message}"


def finish(experiment: ExperimentHandle) -> State:
    """Wait for its end."""
    wait_until(lambda: is_there(experiment) in TERMINAL, f"{experiment.id} to end", seconds=PATIENCE_SECONDS)
    return experiment.state
