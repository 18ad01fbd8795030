"""A training step reads nothing from its device but the loss of the step before: on a GPU every other read would wait.

A CPU waits for nothing, but what is read is the same there. That a GPU is not waited for, test_on_gpu.py shows.
"""

import contextlib

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from workers.data import load_dataset
from workers.protocol.stop import StopSignal
from workers.tracking.tracker import Tracker
from workers.train.distributed import ProcessGroup
from workers.train.learner import Learner
from workers.train.trainer import Trainer

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.equal, aten.nonzero, aten.masked_select, aten.unique_dim, aten._unique2}
"""Operations whose value, or the size of whose value, the process has to know."""
COPIES = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist, torch.tensor, torch.Tensor.new_tensor}
"""From the device, or to it out of memory that is not pinned."""


class _Operations(TorchDispatchMode):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.overloadpacket in READS:
            self.seen.append(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in COPIES:
            self.seen.append(function.__name__)
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def watched(seen):
    """While open, every read and every blocking copy is added to `seen`, by its name."""
    with _Operations(seen), _Calls(seen):
        yield


class Curves(Tracker):
    def __init__(self):
        self.losses = {}

    def log(self, step, metrics):
        self.losses[step] = metrics["train/loss"]


@pytest.fixture
def trainer(tiny_spec, assign):
    """A trainer whose recipe has these fields, the batches that it takes, and what it has logged."""
    with contextlib.ExitStack() as stack:

        def make(augment, train):
            data = {"dataset": "synthetic", "image_size": 16, "augment": augment}
            spec = tiny_spec(data=data, train={"global_batch_size": 32} | train)
            gang, curves = ProcessGroup(0, 1, torch.device("cpu")), Curves()
            dataset, stop = load_dataset(spec.data), StopSignal()
            trainer = Trainer(assign(spec), gang, dataset, tracker=curves, report=lambda _: None, stop=stop)
            return trainer, stack.enter_context(contextlib.closing(trainer.batches.train_from(0))), curves

        yield make


RECIPES = {
    "plain": ({}, {}),
    "bf16, channels last": ({}, {"precision": "bf16", "channels_last": True}),
    "clipped, averaged, in parts": ({}, {"clip_norm": 1.0, "ema": {}, "accumulate": 2}),
    "crops": ({"random_resized_crop": True, "flip": 0.5, "erasing": 0.5}, {}),
    "padded crops": ({"crop_padding": 2}, {}),
    "colours": ({"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.2}, {}),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_step_reads_the_loss_of_the_step_before_it_and_nothing_else(trainer, recipe, monkeypatch):
    """Once the next step is enqueued."""
    trainer, batches, curves = trainer(*recipe)
    seen, learn = [], Learner.learn
    monkeypatch.setattr(Learner, "learn", lambda *a, **kw: (learn(*a, **kw), seen.append("enqueued"))[0])
    for _ in range(2):
        trainer.train_step(batches)  # buffers are allocated, constants copied
    seen.clear()
    with watched(seen):
        for _ in range(3):
            trainer.train_step(batches)
            assert max(curves.losses) == trainer.step - 1, "it is logged under its own step"
    assert seen == ["enqueued", "_local_scalar_dense"] * 3


def test_mixing_reads_nothing(trainer):
    """But for what torch's one_hot checks on a CPU: that no class is below 0 or above the last."""
    trainer, batches, _ = trainer({"mixup": 0.2, "cutmix": 1.0}, {})
    seen = []
    trainer.train_step(batches)
    with watched(seen):
        trainer.train_step(batches)
    assert seen == ["_local_scalar_dense"] * 3


@pytest.mark.parametrize("read", [torch.Tensor.item, float, bool, torch.Tensor.cpu, torch.Tensor.tolist])
def test_a_read_within_a_step_is_seen(trainer, read, monkeypatch):
    trainer, batches, _ = trainer({}, {})
    learn = Learner.learn
    trainer.train_step(batches)

    def learn_and_read(*args, **kwargs):
        loss = learn(*args, **kwargs)
        read(loss)
        return loss

    monkeypatch.setattr(Learner, "learn", learn_and_read)
    seen = []
    with watched(seen):
        trainer.train_step(batches)
    assert len(seen) == 2, "the planted one, and that of the step before"
