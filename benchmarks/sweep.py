"""A sweep of short trials: through the service, through Ray Tune (defaults, `reuse_actors=True`), and through Ray Jobs.

Every trial is the same spec with another seed, about a second of training on one core, with its log and its MLflow run;
through the service it also has its row. Each way has a Ray head of two CPUs as its users start it, the service that of
`cbam up`, with its two workers on standby (`--standby 0` goes without them); all use the same MLflow server, in turns,
which one run has warmed up for them, and none begins before the machine is quiet. A machine that is slow for a minute
is so for one of them, so what counts is the median of several rounds. Budgets: at most 1/4 of Ray Tune with its
defaults, 1.0 of it with reused actors, and 1/10 of Ray Jobs, which gets fewer trials, as each takes some ten seconds,
and is compared by the seconds of a trial.

Ray Tune needs pandas and pyarrow (both come with MLflow), Ray Jobs `ray[default]` (the dependency group `jobs`).

    python -m benchmarks.sweep [--trials 50] [--jobs 10] [--rounds 3] [--standby 2] [--ways defaults reuse_actors jobs]
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from service.client.client import Client
from service.domain.states import State
from service.stack.parts import environment
from service.stack.record import StackRecord
from service.stack.settings import StackSettings
from service.stack.stack import Stack
from tests.support.ray_head import RAY_ENVIRONMENT, ray_head
from tests.support.waiting import wait_until

BUDGETS = {"defaults": 0.25, "reuse_actors": 1.0, "jobs": 0.1}
HAS_JOBS = importlib.util.find_spec("aiohttp_cors") is not None
ROOT = Path(__file__).parents[1]
QUIET_PERCENT = 15.0  # of all cores
SPEC: dict[str, Any] = {
    "name": "trial",
    "project": "sweep",
    "model": {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}},
    "data": {"dataset": "digits", "image_size": 8},
}
TRAIN: dict[str, Any] = {"epochs": 1, "global_batch_size": 128}


def spec_of(seed: int) -> dict[str, Any]:
    """One trial."""
    return SPEC | {"name": f"trial-{seed}", "train": TRAIN | {"seed": seed}}


def main() -> int:
    """Measure all ways and print the ratios; 1 where a budget is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=10, help="how many trials Ray Jobs gets")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--standby", type=int, default=2, help="workers that the service keeps ready")
    default = [way for way in BUDGETS if HAS_JOBS or way != "jobs"]
    parser.add_argument("--ways", nargs="+", choices=list(BUDGETS), default=default)
    parser.add_argument("--tune", choices=["defaults", "reuse_actors"], help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seed is not None:
        train(arguments.seed, str(arguments.folder / "jobs"), os.environ["MLFLOW_TRACKING_URI"])
        return 0
    if arguments.tune:
        print(json.dumps(tune(arguments.trials, arguments.folder, reuse=arguments.tune == "reuse_actors")))
        return 0
    with tempfile.TemporaryDirectory(prefix="cbam-bench-") as folder:
        home = Path(folder) / "home"
        stack = Stack(StackSettings(home=home, ray_cpus=2, standby_workers=arguments.standby))
        record = stack.up()
        ratios: dict[str, list[float]] = {way: [] for way in arguments.ways}
        try:
            train(0, str(home / "warm-up"), record.mlflow_url)
            for number in range(arguments.rounds):
                wait_for_quiet()
                ours = through_service(record, arguments.trials) / arguments.trials
                print(f"cbam-lab       {ours:6.2f} s a trial, of {arguments.trials}", flush=True)
                for way in arguments.ways:
                    trials = arguments.jobs if way == "jobs" else arguments.trials
                    through = through_jobs if way == "jobs" else partial(through_tune, way=way)
                    seconds = through(stack, record, trials, number) / trials
                    ratios[way].append(ours / seconds)
                    print(f"{way:<14} {seconds:6.2f} s a trial   cbam-lab / it: {ours / seconds:.2f}", flush=True)
        finally:
            stack.down()
    medians = {way: statistics.median(of_rounds) for way, of_rounds in ratios.items()}
    for way, median in medians.items():
        print(f"cbam-lab / {way}: {median:.2f}, the median of {arguments.rounds} (budget {BUDGETS[way]})")
    return int(any(median > BUDGETS[way] for way, median in medians.items()))


def through_service(record: StackRecord, trials: int) -> float:
    """Seconds from the first POST to the end of the last trial."""
    with Client(record.url) as client:
        begin = time.perf_counter()
        experiments = [client.submit(spec_of(seed)) for seed in range(trials)]
        for experiment in experiments:
            assert experiment.wait().state is State.SUCCEEDED, experiment.view.message
        return time.perf_counter() - begin


def through_tune(stack: Stack, record: StackRecord, trials: int, number: int, way: str) -> float:
    """Seconds that `Tuner.fit` takes, in a process of its own that has already connected to Ray."""
    command = [sys.executable, "-m", "benchmarks.sweep", f"--trials={trials}", f"--tune={way}"]
    variables = environment(stack.settings, record, os.environ) | RAY_ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    del variables["RAY_ADDRESS"]  # the service's
    with mock.patch.dict(os.environ, variables), ray_head(cpus=2) as head:
        done = subprocess.run(
            [*command, f"--folder={_folder(stack, number)}"],
            env=os.environ | {"RAY_ADDRESS": head.address},
            capture_output=True,
            cwd=ROOT,
            check=False,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"Ray Tune failed:\n{done.stderr[-4000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def wait_for_quiet() -> None:
    """Until what was just started has nothing left to load."""
    wait_until(lambda: psutil.cpu_percent(1.0) < QUIET_PERCENT, "a quiet machine", seconds=300)


def _folder(stack: Stack, number: int) -> Path:
    """Where the trials of a round keep their files; its name is in their ids."""
    folder = Path(stack.settings.home) / f"round-{number}"
    folder.mkdir(exist_ok=True)
    return folder


def through_jobs(stack: Stack, record: StackRecord, trials: int, number: int) -> float:
    """Seconds from the first submission to the end of the last job, each on one CPU, on a head with a dashboard."""
    from ray.job_submission import JobStatus, JobSubmissionClient

    variables = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": record.mlflow_url, "MLFLOW_DISABLE_TELEMETRY": "true"}
    folder = _folder(stack, number)
    os.environ.update(RAY_ENVIRONMENT)
    with ray_head(cpus=2, dashboard=True) as head:
        client = JobSubmissionClient(f"http://127.0.0.1:{head.dashboard_port}")
        wait_for_quiet()
        begin = time.perf_counter()

        def submit(seed: int) -> str:
            with suppress(RuntimeError):  # the agent that takes jobs comes a little after the head
                return client.submit_job(
                    entrypoint=f"{sys.executable} -m benchmarks.sweep --seed={seed} --folder={folder}",
                    entrypoint_num_cpus=1,
                    runtime_env={"env_vars": variables},
                )
            return ""

        jobs = [wait_until(lambda seed=seed: submit(seed), "the agent", seconds=300) for seed in range(trials)]
        for job in jobs:
            wait_until(lambda job=job: client.get_job_status(job).is_terminal(), f"{job} to end", seconds=1800)
        seconds = time.perf_counter() - begin
        assert all(client.get_job_status(job) == JobStatus.SUCCEEDED for job in jobs)
    return seconds


def tune(trials: int, folder: Path, *, reuse: bool) -> float:
    """Run the trials through Ray Tune, each on one CPU; gives the seconds."""
    import ray
    from ray import tune as ray_tune

    storage, uri = str(folder / f"tune-{reuse}"), os.environ["MLFLOW_TRACKING_URI"]

    class Trial(ray_tune.Trainable):  # type: ignore[misc]
        """One trial: what a worker of the service does for one attempt."""

        def setup(self, config: dict[str, Any]) -> None:
            self.seed = config["seed"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            return {"top1": train(self.seed, storage, uri), "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """The training wrote its own."""

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    config = ray_tune.TuneConfig(reuse_actors=reuse)
    run_config = ray_tune.RunConfig(storage_path=f"{storage}-results", verbose=0)
    space = {"seed": ray_tune.grid_search(list(range(trials)))}
    wait_for_quiet()
    begin = time.perf_counter()
    results = ray_tune.Tuner(
        ray_tune.with_resources(Trial, {"cpu": 1}), param_space=space, tune_config=config, run_config=run_config
    ).fit()
    seconds = time.perf_counter() - begin
    assert not results.errors
    return seconds


def train(seed: int, storage: str, tracking_uri: str) -> float:
    """One attempt of one trial, by the same code as in the service."""
    from cbam_core.spec import ExperimentSpec
    from workers.attempt import run
    from workers.protocol.assignment import Assignment
    from workers.protocol.stop import StopSignal

    spec = ExperimentSpec.model_validate(spec_of(seed))
    assignment = Assignment(
        experiment_id=f"{'-'.join(Path(storage).parts[-2:])}-{seed}",  # of this way and round alone
        attempt=1,
        token=f"tune-{seed}",
        spec=spec,
        storage=storage,
        rank=0,
        world_size=1,
        master_address="127.0.0.1",
        master_port=0,
        tracking_uri=tracking_uri,
    )
    outcome = run(assignment, stop=StopSignal(), report=lambda _: None)
    assert outcome.outcome == "succeeded", outcome.message
    return outcome.metrics["val/top1"]


if __name__ == "__main__":
    raise SystemExit(main())
