"""A training needs no server: the spec, a folder, and a call."""

from pathlib import Path

from safetensors.torch import load_file

from tests.support.specs import spec
from workers.attempt import run
from workers.protocol.assignment import Assignment
from workers.protocol.progress import Progress
from workers.protocol.stop import StopSignal


def assignment(folder: Path, attempt: int, **changes: object) -> Assignment:
    return Assignment(
        experiment_id="mine",
        attempt=attempt,
        token=f"token-{attempt}",
        spec=spec(**changes),
        storage=str(folder),
        rank=0,
        world_size=1,
        master_address="127.0.0.1",
        master_port=0,
        tracking_uri=None,
        data_roots=(),
    )


def test_an_attempt_trains_and_leaves_its_weights_and_a_record(tmp_path: Path):
    """`report` hears of every step; the outcome says how it ended; the weights are plain safetensors."""
    heard: list[Progress] = []
    task = assignment(tmp_path, 1)
    outcome = run(task, stop=StopSignal(), report=heard.append)
    assert outcome.outcome == "succeeded"
    assert outcome.metrics["val/top1"] > 0.15, "better than guessing one of ten digits, after one pass"
    assert heard[-1].phase == "ended"
    assert task.folder.attempt(1).result.exists()
    (weights,) = task.folder.export.glob("*.safetensors")
    assert sum(value.numel() for value in load_file(weights).values()) > outcome.summary["parameters"]


def test_a_paused_attempt_is_taken_up_by_the_next_one(tmp_path: Path):
    """Stopping is cooperative: the training ends at a step, writes a checkpoint, and another attempt goes on there."""
    stop = StopSignal()

    def pause_after_three_steps(progress: Progress) -> None:
        if progress.step == 3:
            stop.request("pause")

    paused = run(assignment(tmp_path, 1), stop=stop, report=pause_after_three_steps)
    resumed = run(assignment(tmp_path, 2), stop=StopSignal(), report=lambda _: None)
    assert (paused.outcome, resumed.outcome) == ("paused", "succeeded")
    assert resumed.summary["resumed_from_step"] == paused.step
