"""Ranks as real processes: what a gang computes, and what it says when one of its ranks goes."""

import json
import textwrap

import pyarrow.parquet as pq
import pytest
import torch

from cbam_core.spec import DataSpec
from tests.support.ports import free_port
from workers.data import load_dataset
from workers.protocol.outcome import read_outcome
from workers.protocol.storage import ExperimentFolder

JOIN = """
import copy, os, torch
from dataclasses import replace
from torch import nn
from cbam_core.spec import ExperimentSpec
from workers.protocol.assignment import Assignment
from workers.train.distributed import gang_of

torch.set_num_threads(1)
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
spec = ExperimentSpec.model_validate({
    "name": "gang",
    "model": {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}},
    "data": {"dataset": "digits", "image_size": 8},
    "train": {"epochs": 2, "global_batch_size": 126, "optimizer": {"type": "sgd", "lr": float(os.environ["LR"])}},
    "resources": {"workers": world},
})
assignment = Assignment("e1", 1, "t1", spec, os.environ["STORAGE"], rank, world,
                        "127.0.0.1", int(os.environ["MASTER_PORT"]))

def later_gangs():
    # Further attempts of this process: each gang meets at a port of its own, as in the service. At the same one a quick
    # rank would join the store that rank 0 is about to close.
    return [replace(assignment, token=port, master_port=int(port)) for port in os.environ["PORTS"].split()]
"""


@pytest.fixture
def run_ranks(ranks, tmp_path):
    """Run one process per rank to its end; gives what each printed."""

    def run(code, world_size, **environment):
        program = ["-c", JOIN + textwrap.dedent(code)]
        outputs = []
        values = {"STORAGE": str(tmp_path), "LR": "0.1", "PORTS": f"{free_port()} {free_port()}"} | environment
        for process in ranks.start(program, world_size, **values):
            output, errors = process.communicate(timeout=240)
            assert process.returncode in (0, -9), errors
            outputs.append(output)
        return outputs

    return run


def test_a_gang_that_has_parted_leaves_no_thread(run_ranks):
    """While its wrapped network is still held: a thread that outlives the interpreter's end aborts the process."""
    code = """
    def threads_of_gloo():
        names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
        return [name for name in names if "gloo" in name]

    network = nn.Linear(3, 5)
    for one in (assignment, *later_gangs()):
        with gang_of(one) as gang:
            parallel = gang.wrap(network)
            parallel(torch.ones(2, 3)).sum().backward()
            gang.agree(0)
            gang.settle()
            assert threads_of_gloo() != []
        assert threads_of_gloo() == []
    """
    run_ranks(code, 2)


def test_ranks_meet_where_they_agreed_however_far_one_is_ahead(run_ranks):
    """Rank 1 goes on at once, and rank 0 only when rank 1 has come back: it must still find there what it left."""
    code = """
    import socket, time
    from pathlib import Path
    from workers.train.distributed import agree_on_attempt

    address = assignment.master_address, assignment.master_port
    print(*agree_on_attempt(rank + 1, f"token-{rank}", rank=rank, world_size=world, address=address))
    agreed, is_back = Path(os.environ["STORAGE"], "agreed"), Path(os.environ["STORAGE"], "is-back")
    if rank == 0:
        agreed.touch()
        while not is_back.exists():
            time.sleep(0.01)
    else:
        while not agreed.exists():
            time.sleep(0.01)
        try:
            socket.create_connection(address).close()
        finally:
            is_back.touch()
    with gang_of(assignment) as gang:
        print(int(gang.sum(torch.tensor(rank + 1))))
    """
    assert run_ranks(code, 2) == ["1 token-0\n3\n"] * 2


@pytest.mark.parametrize("static_graph", [False, True])
def test_two_ranks_have_the_gradients_of_one(run_ranks, static_graph):
    """Halves of a batch on two ranks give the gradients of the whole batch on one, in fp64, and without a warning."""
    code = """
    import warnings
    warnings.simplefilter("error")
    static_graph = bool(int(os.environ["STATIC_GRAPH"]))
    torch.manual_seed(0)
    images, labels = torch.randn(16, 3, 8, 8).double(), torch.randint(0, 5, (16,))
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).double()
    alone = copy.deepcopy(network)
    with gang_of(assignment) as gang:
        half = slice(8 * rank, 8 * rank + 8)
        parallel = gang.wrap(network, static_graph=static_graph)
        for _ in range(3):  # a static graph takes another way from its second pass on
            parallel.zero_grad()
            nn.functional.cross_entropy(parallel(images[half]), labels[half]).backward()
        together = [weight.grad.clone() for weight in network.parameters()]
    nn.functional.cross_entropy(alone(images), labels).backward()
    print(max((ours - whole.grad).abs().max().item() for ours, whole in zip(together, alone.parameters())))
    """
    for output in run_ranks(code, 2, STATIC_GRAPH=str(int(static_graph))):
        assert float(output) < 1e-10


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_two_ranks_that_accumulate_learn_what_one_does_from_the_whole_batch(run_ranks, clip_norm):
    """Three steps in fp64: each rank takes its half in two parts, and the gradients meet once, with the last part."""
    code = """
    from cbam_core.spec import TrainSpec
    from workers.train.distributed import ProcessGroup
    from workers.train.learner import Learner
    clip_norm = float(os.environ["CLIP_NORM"]) or None
    torch.manual_seed(0)
    images, labels = torch.randn(16, 3, 8, 8).double(), torch.randint(0, 5, (16,))
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).double()
    alone = Learner(TrainSpec(clip_norm=clip_norm), copy.deepcopy(network), ProcessGroup(0, 1, torch.device("cpu")))
    with gang_of(assignment) as gang:
        together = Learner(TrainSpec(accumulate=2, clip_norm=clip_norm), network, gang)
        half = slice(8 * rank, 8 * rank + 8)
        for step in range(3):
            together.learn(images[half], labels[half], rate=0.1, step=step)
            alone.learn(images, labels, rate=0.1, step=step)
    pairs = zip(together.network.parameters(), alone.network.parameters())
    print(max((ours - whole).abs().max().item() for ours, whole in pairs))
    """
    for output in run_ranks(code, 2, CLIP_NORM=str(clip_norm or 0)):
        assert float(output) < 1e-10


def test_the_graph_is_static_where_every_pass_is_alike(run_ranks):
    code = """
    from cbam_core.spec import TrainSpec
    from workers.train.learner import Learner
    with gang_of(assignment) as gang:
        for recipe in (TrainSpec(), TrainSpec(accumulate=2), TrainSpec(compile=True)):
            parallel = Learner(recipe, nn.Linear(2, 2), gang)._parallel
            print(parallel.static_graph, parallel.gradient_as_bucket_view, parallel.broadcast_buffers)
    """
    assert set(run_ranks(code, 2)) == {"True True False\nFalse True False\nFalse True False\n"}


LEARN_TOGETHER = """
from cbam_core.spec import TrainSpec
from workers.train.distributed import ProcessGroup
from workers.train.learner import Learner
recipe = TrainSpec.model_validate({"sync_batch_norm": True, "optimizer": {"type": "sgd", "lr": 0.1}})
"""


def test_synchronised_batch_norm_is_asked_of_torch(run_ranks):
    """Torch refuses it on CPUs, in these words; a spec that asks for it there is refused before."""
    code = """
    with gang_of(assignment) as gang:
        try:
            Learner(recipe, nn.Sequential(nn.BatchNorm2d(2), nn.Flatten()), gang)
        except ValueError as error:
            print(error)
    """
    for output in run_ranks(LEARN_TOGETHER + textwrap.dedent(code), 2):
        assert "SyncBatchNorm layers only work with GPU modules" in output


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch synchronises batch norm between GPUs only")
def test_batch_statistics_of_two_ranks_are_those_of_the_whole_batch(run_ranks):
    """Both ranks use the one GPU, over gloo, as NCCL refuses that."""
    code = """
    images, labels = torch.randn(16, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 2
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world,
                                         init_method=f"tcp://127.0.0.1:{os.environ['MASTER_PORT']}")
    gang = ProcessGroup(rank, world, torch.device("cuda", 0))
    learner = Learner(recipe, nn.Sequential(nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), gang)
    half = slice(8 * rank, 8 * rank + 8)
    learner.learn(images[half].to(gang.device), labels[half].to(gang.device), rate=0.1, step=0)
    alone = nn.BatchNorm2d(2)
    alone(images)
    print((learner.network[0].running_mean.cpu() - alone.running_mean).abs().max().item())
    torch.distributed.destroy_process_group()
    """
    for output in run_ranks(LEARN_TOGETHER + textwrap.dedent(code), 2):
        assert float(output) < 1e-6


def test_every_rank_knows_the_devices_of_all(run_ranks):
    code = """
    from workers.train import distributed
    for names in (["cpu (one)", "cpu (other)"], ["cpu (one)", "cpu (one)"]):
        distributed.device_name = lambda device: names[rank]
        with gang_of(assignment if names[0] != names[1] else next(iter(later_gangs()))) as gang:
            print(gang.devices())
    """
    assert run_ranks(code, 2) == ["cpu (one), cpu (other)\ncpu (one)\n"] * 2


def test_the_gang_agrees_on_the_largest_flag_one_call_later(run_ranks):
    code = """
    with gang_of(assignment) as gang:
        flags = [0, 2 if rank == 1 else 0, 1, 0, 0]
        print([gang.agree(flag) for flag in flags])
        gang.settle()
    """
    assert set(run_ranks(code, 3)) == {"[0, 0, 2, 1, 0]\n"}


def test_a_process_can_join_one_gang_after_another(run_ranks):
    code = """
    for one in (assignment, *later_gangs()):
        with gang_of(one) as gang:
            print(gang.sum(torch.tensor(rank + 1.0)).item(), gang.from_leader(10 + rank))
    """
    assert set(run_ranks(code, 2)) == {"3.0 10\n" * 3}


TRAIN = """
import signal
from workers.attempt import run
from workers.protocol.stop import StopSignal

def die_at(step):
    def watch(progress):
        if rank == 1 and progress.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
    return watch
"""


def test_a_rank_that_is_killed_is_a_worker_that_died_not_an_error_of_the_user(run_ranks, tmp_path):
    code = "outcome = run(assignment, stop=StopSignal(), report=die_at(5))\nprint(outcome.reason)"
    survivor, killed = run_ranks(TRAIN + code, 2)
    assert (survivor, killed) == ("WORKER_DIED\n", "")
    record = json.loads(ExperimentFolder(tmp_path, "e1").attempt(1).result.read_text())
    assert (record["outcome"], record["reason"], record["rank"]) == ("failed", "WORKER_DIED", 0)


def test_the_rank_that_fails_first_tells_the_cause(run_ranks, tmp_path):
    """Rank 1 fails on its own; rank 0 only sees it go, and must not claim that a worker died."""
    code = """
    def fail_on_rank_1(progress):
        if rank == 1 and progress.phase == "training" and progress.step == 5:
            raise ValueError("rank 1 stumbled")
    outcome = run(assignment, stop=StopSignal(), report=fail_on_rank_1)
    print(outcome.reason, outcome.rank, "stumbled" in outcome.message)
    """
    assert run_ranks(TRAIN + textwrap.dedent(code), 2) == ["USER_ERROR 1 True\n"] * 2


def test_all_ranks_see_a_loss_that_is_not_finite(run_ranks):
    code = "print(run(assignment, stop=StopSignal(), report=die_at(-1)).reason)"
    assert run_ranks(TRAIN + code, 2, LR="1e30") == ["LOSS_NOT_FINITE\n"] * 2


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_what_ranks_say_of_each_image_gives_the_metrics_exactly(run_ranks, tmp_path, world_size):
    """Val has 144 images and a batch 126, so that ranks have none of the last one."""
    code = """
    import json
    from workers.attempt import run
    from workers.protocol.stop import StopSignal

    outcome = run(assignment, stop=StopSignal(), report=lambda progress: None)
    print(json.dumps(outcome.metrics))
    """
    told = [json.loads(output) for output in run_ranks(code, world_size)]
    rows = pq.read_table(ExperimentFolder(tmp_path, "e1").predictions).to_pandas()
    images = load_dataset(DataSpec(dataset="digits", image_size=8))
    for part in ("val", "test"):
        of_part, known = rows[rows.split == part], getattr(images, part)
        assert of_part["index"].tolist() == known.origin.tolist(), "each image once, padded ones never"
        assert of_part.label.tolist() == known.labels.tolist()
        top1 = int((of_part.predicted == of_part.label).sum()) / len(known)
        assert [metrics[f"{part}/top1"] for metrics in told] == [top1] * world_size


def test_ranks_with_other_images_do_not_train(run_ranks, tmp_path):
    """A copy of the folder on every node, one of which differs: they would train on each other's test images."""
    code = """
    import workers.attempt as attempt
    from cbam_core.spec import ValSpec
    from workers.protocol.stop import StopSignal

    if rank == 1:
        load = attempt.load_dataset
        attempt.load_dataset = lambda data, *a, **kw: load(data.model_copy(update={"val": ValSpec(seed=1)}), *a, **kw)
    print(attempt.run(assignment, stop=StopSignal(), report=lambda progress: None).outcome)
    """
    assert run_ranks(code, 2) == ["failed\n"] * 2
    told = read_outcome(ExperimentFolder(tmp_path, "e1").attempt(1))
    assert (told.reason, told.rank) == ("DATA_ERROR", 1)
    assert "rank 1 has other images than rank 0" in told.message
