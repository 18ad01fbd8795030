"""A probe of cost on two ranks, as real processes: both make the same steps, and rank 0 says what came of it."""

import pytest

from workers.protocol.outcome import read_outcome
from workers.protocol.probe import ProbeNumbers
from workers.protocol.storage import ExperimentFolder

PROGRAM = """
import os, torch
from cbam_core.spec import ExperimentSpec
from workers.attempt import run
from workers.protocol.assignment import Assignment
from workers.protocol.probe import Probe
from workers.protocol.stop import StopSignal

torch.set_num_threads(1)
rank, world, stop = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), StopSignal()

def spec(attention):
    return ExperimentSpec.model_validate({
        "name": "gang",
        "model": {"backbone": "cifar_resnet20", "attention": {"type": attention}},
        "data": {"dataset": "digits", "image_size": 8},
        "train": {"epochs": 2, "global_batch_size": 32, "optimizer": {"type": "sgd", "lr": 0.1}},
        "resources": {"workers": world},
    })

def watch(progress):
    if rank == 1 and progress.step == int(os.environ["STOP_AT"]):
        stop.request("pause")

assignment = Assignment("e1", 1, "t1", spec("se"), os.environ["STORAGE"], rank, world, "127.0.0.1",
                        int(os.environ["MASTER_PORT"]), probe=Probe(spec("none"), 0.02))
outcome = run(assignment, stop=stop, report=watch)
print(outcome.outcome, outcome.message)
"""


@pytest.mark.parametrize(("stop_at", "ending"), [(-1, "succeeded"), (5, "paused")])
def test_two_ranks_measure_together_and_stop_together(ranks, tmp_path, stop_at, ending):
    said = []
    for process in ranks.start(["-c", PROGRAM], 2, STORAGE=str(tmp_path), STOP_AT=str(stop_at)):
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        said.append(output.split()[0])
    assert said == [ending] * 2
    outcome = read_outcome(ExperimentFolder(tmp_path, "e1").attempt(1))
    assert (outcome.outcome, outcome.rank) == (ending, 0)
    numbers = ProbeNumbers.from_dict(outcome.summary.get("probe"))
    assert (numbers is not None and len(numbers.control)) == (8 if ending == "succeeded" else False)
