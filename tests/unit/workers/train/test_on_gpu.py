"""What only a GPU can show: it works behind the process that gives it work, with kernels and a scaler of its own."""

import contextlib
import copy
import gc
import os
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cbam_core.networks import build_network
from cbam_core.spec import DataSpec, ModelSpec, TrainSpec
from tests.support.ranks import Ranks
from workers.data import load_dataset
from workers.data.datasets.base import Order
from workers.data.loaders import BATCHES_AHEAD, Loader
from workers.protocol.stop import StopSignal
from workers.runtime.memory_check import GPU_LEFT_BYTES
from workers.tracking.tracker import Tracker
from workers.train.distributed import ProcessGroup
from workers.train.learner import Learner
from workers.train.trainer import Trainer
from workers.train.utilization import peak_memory_bytes, reset_peak_memory, synchronize

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = torch.device("cuda", 0)
A_WHILE = 20_000_000
"""Cycles of a GPU: some ten milliseconds."""
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at whichever product of this process is first
SGD = {"type": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}


def test_batches_read_ahead_keep_their_pixels_while_the_gpu_lags_behind():
    """Neither is pinned memory filled anew before it is copied, nor a copy's memory before the training has read it."""
    images = load_dataset(DataSpec(dataset="synthetic", image_size=16)).train
    orders = [Order(numbers) for numbers in torch.randperm(len(images)).split(64)[: 5 * BATCHES_AHEAD]]
    loader, seen = Loader(images, orders, processes=2, device=GPU), []
    for pixels, labels in loader:
        torch.cuda._sleep(3 * A_WHILE)  # the training reads late …
        seen.append((pixels.clone(), labels))
        with torch.cuda.stream(loader._slots._copies):
            torch.cuda._sleep(A_WHILE)  # … and the next batch is copied late, but before that
        del pixels
    loader.close()
    for (pixels, labels), order in zip(seen, orders, strict=True):
        assert pixels.device == labels.device == GPU
        assert torch.equal(pixels.cpu(), images.take(order))
        assert torch.equal(labels.cpu(), images.labels[order.indices])


def test_what_a_gpu_was_given_is_done_when_it_is_finished():
    done = torch.cuda.Event()
    torch.cuda._sleep(10 * A_WHILE)
    done.record()
    assert not done.query(), "the process is ahead"
    synchronize(GPU)
    assert done.query()


def test_peak_memory_is_that_of_tensors_on_the_gpu_since_it_was_forgotten():
    held = torch.empty(64 * 2**20, dtype=torch.uint8, device=GPU)
    del held
    reset_peak_memory(GPU)
    before = peak_memory_bytes(GPU)
    held = torch.empty(32 * 2**20, dtype=torch.uint8, device=GPU)
    assert peak_memory_bytes(GPU) - before == held.nbytes


class Curve(Tracker):
    """Keeps the losses that are logged, by step."""

    def __init__(self):
        self.losses = {}

    def log(self, step, metrics):
        if "train/loss" in metrics:
            self.losses[step] = metrics["train/loss"]


@pytest.fixture
def trainer(tiny_spec, assign):
    """A trainer on the GPU that logs every step, the batches that it takes, and what it has logged."""
    with contextlib.ExitStack() as stack:

        def make(train, augment=None, **data):
            data = {"dataset": "synthetic", "image_size": 32, "augment": augment or {}} | data
            spec = tiny_spec(data=data, train={"global_batch_size": 256} | train, resources={"gpus_per_worker": 1})
            images, curve, stop = load_dataset(spec.data), Curve(), StopSignal()
            if not spec.data.workers_per_rank:
                images = images.to(GPU)
            gang = ProcessGroup(0, 1, GPU)
            trainer = Trainer(assign(spec), gang, images, tracker=curve, report=lambda _: None, stop=stop)
            stack.callback(trainer.batches.close)
            return trainer, stack.enter_context(contextlib.closing(trainer.batches.train_from(0))), curve

        yield make


@contextlib.contextmanager
def waits_are_errors():
    """torch raises where an operation waits for the GPU. It also warns that the mode may miss some, at every change."""

    def change(mode):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode(mode)

    change("error")
    try:
        yield
    finally:
        change("default")


CROPS = {"random_resized_crop": True, "flip": 0.5, "erasing": 0.5}
COLOURS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.2}
UNWAITED = {
    "fp32": ({}, {}),
    "bf16": ({"precision": "bf16", "channels_last": True}, {"crop_padding": 4}),
    "fp16": ({"precision": "fp16", "clip_norm": 1.0}, CROPS),
    "fp16, unclipped": ({"precision": "fp16"}, {"mixup": 0.2}),
    "fp16, AdamW": ({"precision": "fp16", "optimizer": {"type": "adamw"}}, {"cutmix": 1.0}),
    "averaged, in parts": ({"precision": "bf16", "ema": {}, "accumulate": 2}, CROPS | {"mixup": 0.2, "cutmix": 1.0}),
    "colours": ({}, COLOURS),
    "RandAugment": ({}, {"rand_augment": {}}),
    "TrivialAugment": ({}, {"trivial_augment": True}),
}


@pytest.mark.parametrize(("train", "augment"), UNWAITED.values(), ids=UNWAITED)
@pytest.mark.parametrize("loaders", [0, 1])
def test_a_warm_step_that_is_logged_waits_for_no_result(trainer, train, augment, loaders):
    """Over the end of an epoch. torch raises where an operation waits for the GPU, and not for a wait for an event."""
    trainer, batches, curve = trainer(train, augment, workers_per_rank=loaders)
    for _ in range(4):
        trainer.train_step(batches)
    with waits_are_errors():
        for _ in range(6):
            trainer.train_step(batches)
    assert list(curve.losses) == list(range(1, 10)), "the last one is pending"


def test_a_wait_within_a_step_is_found(trainer, monkeypatch):
    trainer, batches, _ = trainer({})
    trainer.train_step(batches)
    learn = Learner.learn

    def learn_and_read(*args, **kwargs):
        loss = learn(*args, **kwargs)
        loss.item()
        return loss

    monkeypatch.setattr(Learner, "learn", learn_and_read)
    with waits_are_errors(), pytest.raises(RuntimeError, match="synchronizing"):
        trainer.train_step(batches)


def test_the_gpu_is_one_step_behind_and_what_is_logged_is_its_own_loss(trainer, monkeypatch):
    trainer, batches, curve = trainer({})
    learn, losses, ends = Learner.learn, [], []

    def learn_late(*args, **kwargs):
        losses.append(learn(*args, **kwargs).clone())
        torch.cuda._sleep(5 * A_WHILE)
        ends.append(torch.cuda.Event())
        ends[-1].record()
        return losses[-1]

    monkeypatch.setattr(Learner, "learn", learn_late)
    for _ in range(6):
        trainer.train_step(batches)
    assert [end.query() for end in ends] == [True] * 5 + [False]
    trainer.evaluate()
    assert [curve.losses[step] for step in range(1, 7)] == torch.stack(losses).tolist()


def test_fp16_clips_what_the_gradient_is_without_its_scale():
    """A step that overflows at the first, large scale is skipped; the first that does not moves by rate · clip_norm."""
    torch.manual_seed(0)
    images, labels = torch.randn(16, 3, 6, 6).to(GPU), torch.randint(0, 5, (16,)).to(GPU)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
    recipe = TrainSpec.model_validate({"precision": "fp16", "clip_norm": 0.01, "optimizer": SGD})
    learner = Learner(recipe, network, ProcessGroup(0, 1, GPU))
    for step in range(20):
        before, scale = copy.deepcopy(network.state_dict()), learner.state()["scaler"]["scale"]
        learner.learn(images, labels, rate=0.1, step=step)
        moved = torch.cat([(value - before[name]).flatten() for name, value in network.state_dict().items()]).norm()
        if learner.state()["scaler"]["scale"] == scale:
            break
        assert moved.item() == 0
    assert moved.item() == pytest.approx(0.1 * 0.01, rel=1e-2)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="Triton needs a C compiler")
@pytest.mark.filterwarnings("ignore")
def test_compiled_steps_in_bf16_and_channels_last_follow_the_eager_ones():
    torch.manual_seed(0)
    images, labels = torch.randn(32, 3, 32, 32).to(GPU), torch.randint(0, 10, (32,)).to(GPU)
    model = ModelSpec.model_validate({"backbone": "cifar_resnet20", "attention": {"type": "cbam"}})
    first, losses = build_network(model, 10), {}
    for compiled in (False, True):
        recipe = TrainSpec(precision="bf16", channels_last=True, compile=compiled)
        learner = Learner(recipe, copy.deepcopy(first), ProcessGroup(0, 1, GPU))
        losses[compiled] = torch.stack([learner.learn(images, labels, rate=0.05, step=step) for step in range(3)])
        assert learner.network.conv1.weight.is_contiguous(memory_format=torch.channels_last)
        assert {weight.dtype for weight in learner.network.parameters()} == {torch.float32}
    torch.testing.assert_close(losses[True], losses[False], rtol=0.03, atol=0.03)
    assert losses[True][2] < losses[True][0]


def test_a_training_on_a_gpu_that_was_paused_ends_with_the_bits_of_one_that_was_not(tiny_spec, assign, train):
    spec = tiny_spec(
        data={"augment": {"random_resized_crop": True, "mixup": 0.2}},
        train={"precision": "bf16", "channels_last": True, "ema": {}, "accumulate": 2},
        resources={"gpus_per_worker": 1},
    )
    unbroken, broken = (assign(spec, experiment_id=name) for name in ("unbroken", "broken"))
    outcome, _ = train(unbroken)
    assert outcome.outcome == "succeeded", outcome.message
    train(broken, stop_when=lambda progress: progress.step == 3 and "pause")
    outcome, _ = train(assign(spec, experiment_id="broken", attempt=2, token="t2"))
    assert outcome.summary["resumed_from_step"] == 3
    theirs = load_file(unbroken.folder.weights)
    assert all(torch.equal(value, theirs[name]) for name, value in load_file(broken.folder.weights).items())


def test_the_weights_of_a_training_in_channels_last_are_found_to_be_the_networks(tiny_spec, assign, train):
    """Though convolutions in TF32 give other scores where the layout in memory is another."""
    spec = tiny_spec(
        model={"backbone": "resnet18", "stem": "cifar"},
        data={"image_size": 32},
        train={"precision": "bf16", "channels_last": True, "deterministic": False},
        resources={"gpus_per_worker": 1},
    )
    outcome, _ = train(assign(spec))
    assert outcome.outcome == "succeeded", outcome.message


def test_a_training_that_does_not_fit_is_out_of_gpu_memory_by_name_and_leaves_it_free(tiny_spec, assign, train):
    spec = tiny_spec(model={"backbone": "resnet50"}, data={"image_size": 224}, resources={"gpus_per_worker": 1})
    held = torch.cuda.memory_allocated(GPU)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2 * 2**30 / torch.cuda.get_device_properties(GPU).total_memory, GPU)
    try:
        outcome, _ = train(assign(spec))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
    assert (outcome.outcome, outcome.reason) == ("failed", "CUDA_OOM"), outcome.message
    assert "accumulate" in outcome.message, "it says what helps"
    gc.collect()
    assert torch.cuda.memory_allocated(GPU) - held < GPU_LEFT_BYTES


TWO_GPUS = """
import copy, os, torch
from torch import distributed, nn
from cbam_core.spec import ExperimentSpec
from workers.protocol.assignment import Assignment
from workers.train.distributed import gang_of

rank = int(os.environ["RANK"])
os.environ["LOCAL_RANK"] = str(rank)
spec = ExperimentSpec.model_validate({
    "name": "gang",
    "model": {"backbone": "cifar_resnet20"},
    "data": {"dataset": "digits", "image_size": 8},
    "train": {"epochs": 1, "global_batch_size": 16},
    "resources": {"workers": 2, "gpus_per_worker": 1},
})
port = int(os.environ["MASTER_PORT"])
torch.manual_seed(0)
images, labels = torch.randn(16, 3, 8, 8).double(), torch.randint(0, 5, (16,))
network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).double()
alone = copy.deepcopy(network)
with gang_of(Assignment("e1", 1, "t1", spec, os.environ["STORAGE"], rank, 2, "127.0.0.1", port)) as gang:
    device = gang.device
    parallel, half = gang.wrap(network.to(device), static_graph=True), slice(8 * rank, 8 * rank + 8)
    for _ in range(3):
        parallel.zero_grad()
        nn.functional.cross_entropy(parallel(images[half].to(device)), labels[half].to(device)).backward()
    together = [weight.grad.cpu() for weight in network.parameters()]
    agreed = [gang.agree(flag) for flag in (0, rank, 0)]
    gang.settle()
    print(device, distributed.get_backend_config(), gang.sum(torch.ones((), device=device)).item(), agreed)
nn.functional.cross_entropy(alone(images), labels).backward()
print(max((ours - whole.grad).abs().max().item() for ours, whole in zip(together, alone.parameters())))
"""


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_ranks_on_two_gpus_have_the_gradients_of_one_over_nccl(tmp_path):
    """Flags are agreed on beside it, over gloo."""
    ranks = Ranks()
    try:
        for rank, process in enumerate(ranks.start(["-c", TWO_GPUS], 2, STORAGE=str(tmp_path))):
            output, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
            facts, difference = output.splitlines()[-2:]
            assert facts.startswith(f"cuda:{rank} ")
            assert "cuda:nccl" in facts
            assert facts.endswith("2.0 [0, 0, 1]")
            assert float(difference) < 1e-10
    finally:
        ranks.end()
