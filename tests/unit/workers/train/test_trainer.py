"""The whole training in one process, against a plain loop that knows nothing of ours."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cbam_core.networks import build_network
from cbam_core.networks.resnet import ResNet
from tests.support.journals import logged
from workers.data import load_dataset
from workers.protocol.outcome import read_outcome
from workers.protocol.stop import StopSignal
from workers.seeding import seed_of
from workers.tracking.provenance import code_version
from workers.train import run_ahead, trainer
from workers.train.checkpoint import Checkpoints


def plain_loop(spec, steps):
    """The same recipe in plain PyTorch: SGD with a cosine rate; losses and rates of the first `steps` steps."""
    train, digits = spec.train, load_dataset(spec.data)
    network = build_network(spec.model, 10, 1, seed=train.seed)
    optimizer = torch.optim.SGD(
        network.parameters(), train.optimizer.lr, train.optimizer.momentum, weight_decay=train.optimizer.weight_decay
    )
    per_epoch = len(digits.train) // train.global_batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / (train.epochs * per_epoch))) / 2
    )
    mean, scale = torch.tensor(digits.mean).mul(255), torch.tensor(digits.std).mul(255).reciprocal()
    losses, rates = [], []
    while len(losses) < steps:
        epoch = len(losses) // per_epoch
        order = torch.randperm(
            len(digits.train), generator=torch.Generator().manual_seed(seed_of(train.seed, "epoch", epoch))
        )
        for batch in order.split(train.global_batch_size)[:per_epoch]:
            images = (digits.train.images[batch].float() - mean) * scale
            loss = nn.functional.cross_entropy(network(images), digits.train.labels[batch])
            rates += schedule.get_last_lr()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses[:steps], rates[:steps]


def last_checkpoint(assignment):
    checkpoints = Checkpoints(assignment.folder.checkpoints, assignment.spec.checkpoint)
    return checkpoints.load(checkpoints.newest())


def curve(assignment, name="train/loss"):
    """What was logged by this name, by step."""
    return {step: value for (key, step), value in logged(assignment.folder).items() if key == name}


@pytest.mark.parametrize("attention", ["none", "se", "cbam"])
def test_twenty_losses_equal_a_plain_loops_bit_for_bit(tiny_spec, assign, train, attention):
    assignment = assign(tiny_spec(model={"attention": {"type": attention}}, train={"epochs": 4}))
    train(assignment)
    losses, rates = plain_loop(assignment.spec, 20)
    assert curve(assignment) == dict(enumerate(losses, start=1))
    assert curve(assignment, "lr") == pytest.approx(dict(enumerate(rates, start=1)))


def test_the_log_has_no_speed_where_one_step_is_all_that_was_taken(tiny_spec, assign, train):
    assignment = assign(tiny_spec(train={"epochs": 1, "global_batch_size": 1000}))
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded"
    log = assignment.folder.attempt(1).log(0).read_text()
    (line,) = [line for line in log.splitlines() if "epoch 1/1" in line]
    assert "nan" not in line
    assert line.rsplit("  ", 1)[1].startswith("val/top1")


def test_a_training_leaves_weights_that_give_the_reported_accuracy(tiny_spec, assign, train):
    assignment = assign(tiny_spec(train={"epochs": 3}))
    outcome, seen = train(assignment)
    assert outcome.outcome == "succeeded"
    assert outcome == read_outcome(assignment.folder.attempt(1))
    assert outcome.summary["parameters"] > 270_000
    assert outcome.summary["device"].startswith("cpu (")
    assert (outcome.summary["world_size"], outcome.summary["torch"]) == (1, torch.__version__)
    assert outcome.summary["code"] == code_version()
    assert seen[-1].phase == "ended"

    digits = load_dataset(assignment.spec.data)
    network = build_network(assignment.spec.model, 10, 1)
    network.load_state_dict(load_file(assignment.folder.weights))
    network.eval()
    matrices = {"val": assignment.folder.confusion_matrix, "test": assignment.folder.test_confusion_matrix}
    for part, matrix in matrices.items():
        images = getattr(digits, part)
        with torch.no_grad():
            scores = network((images.images / 255 - digits.mean[0]) / digits.std[0])
        right = scores.argmax(1) == images.labels
        assert outcome.metrics[f"{part}/top1"] == right.sum().item() / len(right)
        loss = nn.functional.cross_entropy(scores.double(), images.labels).item()
        assert outcome.metrics[f"{part}/loss"] == pytest.approx(loss, rel=1e-4)
        told = json.loads(matrix.read_text())
        assert sum(told["counts"][index][index] for index in range(10)) == right.sum()
        assert [sum(row) for row in told["counts"]] == images.labels.bincount().tolist()
        shares = [right[images.labels == label].double().mean().item() for label in range(10)]
        assert told["accuracy"] == pytest.approx(shares)


def test_a_warm_process_gives_the_bits_of_a_cold_one(tiny_spec, assign, train):
    spec = tiny_spec(train={"epochs": 1, "deterministic": False})
    other = tiny_spec(model={"backbone": "cifar_resnet20", "attention": {"type": "se"}}, train={"epochs": 1})
    cold, warm = (assign(spec, experiment_id=name) for name in ("cold", "warm"))
    train(cold)
    train(assign(other, experiment_id="between"))
    train(warm)
    assert curve(cold) == curve(warm)


@pytest.mark.parametrize("points", [2000, 4])
def test_a_pause_at_any_step_and_a_resume_give_the_unbroken_training(tiny_spec, assign, train, monkeypatch, points):
    """Weights, and every value that is logged, once and under its own step: of every step, or of every third."""
    monkeypatch.setattr(trainer, "CURVE_POINTS", points)
    spec = tiny_spec()
    unbroken = assign(spec, experiment_id="unbroken")
    whole, _ = train(unbroken)
    for step in (1, 4, 5, 6, 9, 10):
        broken = assign(spec, experiment_id=f"broken-{step}")
        paused, _ = train(broken, stop_when=lambda progress, step=step: progress.step == step and "pause")
        assert (paused.outcome, paused.step) == ("paused", step)
        assert list(curve(broken)) == [at for at in curve(unbroken) if at <= step]
        finished, _ = train(assign(spec, experiment_id=f"broken-{step}", attempt=2, token="t2"))
        assert finished.summary["resumed_from_step"] == step
        assert logged(broken.folder) == logged(unbroken.folder)
        assert finished.metrics == whole.metrics
        if step < 10:  # else the checkpoint is of the pause, before the last evaluation
            ours, theirs = last_checkpoint(unbroken), last_checkpoint(broken)
            chosen_by = {name: value for name, value in whole.metrics.items() if not name.startswith("test")}
            assert ours["metrics"] == theirs["metrics"] == chosen_by
            assert torch.equal(ours["losses"], theirs["losses"])
        ours, theirs = (load_file(assignment.folder.weights) for assignment in (unbroken, broken))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_cancel_ends_at_once_and_writes_no_checkpoint(tiny_spec, assign, train):
    assignment = assign(tiny_spec())
    outcome, _ = train(assignment, stop_when=lambda progress: progress.step == 3 and "cancel")
    assert (outcome.outcome, outcome.step) == ("cancelled", 3)
    assert not assignment.folder.checkpoints.exists()
    assert not assignment.folder.export.exists()


def test_a_cancel_outranks_a_pause():
    stop = StopSignal()
    stop.request("cancel")
    stop.request("pause")
    assert stop.mode == "cancel"


def test_checkpoints_come_when_the_spec_says(tiny_spec, assign, train):
    spec = tiny_spec(checkpoint={"every_steps": 3, "keep_last": 100, "keep_best": 0})
    assignment = assign(spec)
    train(assignment)
    steps = sorted(int(path.name[5:]) for path in assignment.folder.checkpoints.iterdir())
    assert steps == [3, 6, 9, 10], "every third, and the end"


def test_a_loss_that_is_not_finite_fails_with_the_step_and_the_last_log_lines(tiny_spec, assign, train):
    spec = tiny_spec(train={"epochs": 5, "optimizer": {"type": "sgd", "lr": 1e30}})
    outcome, _ = train(assign(spec))
    assert (outcome.outcome, outcome.reason) == ("failed", "LOSS_NOT_FINITE")
    assert outcome.summary["code"] == code_version(), "a run that diverged counts in a comparison"
    assert outcome.summary["test_images"] == 355
    assert "wall_seconds" not in outcome.summary
    assert "at step 2" in outcome.message or "at step 3" in outcome.message
    assert "Last log lines" in outcome.message
    assert "LossNotFinite" in assign(spec).folder.attempt(1).log(0).read_text()


@pytest.fixture
def lose_from(monkeypatch):
    """Let weights and losses be not finite from a step on, counted from 1; gives the steps that have been begun."""
    begun, learn = [], trainer.Learner.learn

    def let(first):
        def learn_or_lose(learner, *args, step, **kwargs):
            begun.append(step + 1)
            loss = learn(learner, *args, step=step, **kwargs)
            if step + 1 < first:
                return loss
            torch._foreach_mul_([weight.data for weight in learner.network.parameters()], math.nan)
            return loss * math.nan

        monkeypatch.setattr(trainer.Learner, "learn", learn_or_lose)
        return begun

    return let


@pytest.mark.parametrize("points", [2000, 4])
@pytest.mark.parametrize("step", [1, 3, 4, 5, 6, 10])
def test_a_loss_that_is_not_finite_is_of_its_step_and_leaves_no_checkpoint(
    tiny_spec, assign, train, monkeypatch, lose_from, step, points
):
    """Wherever the step is: before a checkpoint, at the end of an epoch, or with one more step after it."""
    monkeypatch.setattr(trainer, "CURVE_POINTS", points)
    begun = lose_from(step)
    assignment = assign(tiny_spec(checkpoint={"every_steps": 2, "keep_last": 100}))
    outcome, _ = train(assignment)
    assert outcome.reason == "LOSS_NOT_FINITE"
    if points == 2000:
        assert f"the loss became nan at step {step};" in outcome.message
        assert begun[-1] <= step + 1
    assert all(math.isfinite(loss) and at < step for at, loss in curve(assignment).items())
    assert max((int(path.name[5:]) for path in assignment.folder.checkpoints.glob("*")), default=0) < step


@pytest.mark.parametrize("mode", ["pause", "cancel"])
def test_a_loss_that_is_not_finite_is_found_before_the_training_stops(tiny_spec, assign, train, lose_from, mode):
    lose_from(3)
    assignment = assign(tiny_spec())
    outcome, _ = train(assignment, stop_when=lambda progress: progress.step == 3 and mode)
    assert outcome.reason == "LOSS_NOT_FINITE"
    assert "at step 3;" in outcome.message
    assert not assignment.folder.checkpoints.exists()


def test_memory_that_runs_out_fails_with_the_fields_that_save_it(tiny_spec, assign, train, monkeypatch):
    forward, steps = ResNet.forward, []

    def grow(network, images):
        if network.training:
            steps.append(len(images))
        if len(steps) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(network, images)

    monkeypatch.setattr(ResNet, "forward", grow)
    outcome, _ = train(assign(tiny_spec()))
    assert (outcome.outcome, outcome.reason, outcome.step) == ("failed", "CUDA_OOM", 2)
    assert "Tried to allocate 2.00 GiB" in outcome.message
    for path in (
        "train.accumulate",
        "resources.workers",
        "train.global_batch_size",
        "train.precision",
        "data.workers_per_rank",
    ):
        part, field = path.split(".")
        assert path in outcome.message
        assert hasattr(getattr(assign(tiny_spec()).spec, part), field), "the hint names a field that exists"


def test_missing_data_fails_with_what_to_do(tiny_spec, assign, train, tmp_path):
    spec = tiny_spec(data={"dataset": "cifar10", "root": str(tmp_path), "image_size": 32})
    outcome, _ = train(assign(spec, data_roots=(str(tmp_path),)))
    assert outcome.reason == "DATA_ERROR"
    assert "unpack cifar-10-python.tar.gz" in outcome.message


class FarDevice:
    """A clock, and a device that takes its time, while the process only says what is to do and goes ahead."""

    now = done = 0.0

    def __init__(self):
        self.queued = []  # seconds of work that it still had when it was given more

    def perf_counter(self):
        return self.now

    time = perf_counter

    def give(self, seconds):
        self.now += 0.001
        self.queued.append(self.done - self.now)
        self.done = max(self.done, self.now) + seconds

    def finish(self, *_):
        self.now = max(self.now, self.done)

    def end_of_step(self, _device):
        return FarEvent(self, self.done)


class FarEvent:
    def __init__(self, far, done):
        self.far, self.done = far, done

    def synchronize(self):
        self.far.now = max(self.far.now, self.done)


@pytest.fixture
def far(monkeypatch):
    """Each step takes this device a second, each batch that is evaluated seven, whatever our own do."""
    far, learn, evaluate = FarDevice(), trainer.Learner.learn, trainer.Evaluator.evaluate
    monkeypatch.setattr(trainer, "time", far)
    monkeypatch.setattr(run_ahead, "synchronize", far.finish)
    monkeypatch.setattr(run_ahead, "_end_of_step", far.end_of_step)
    monkeypatch.setattr(trainer.Learner, "learn", lambda *a, **kw: far.give(1.0) or learn(*a, **kw))

    def evaluate_far(evaluator, part, *arguments, **fields):
        far.give({"val": 7.0, "test": 14.0}[part])  # one batch, and two
        far.finish()
        return evaluate(evaluator, part, *arguments, **fields)

    monkeypatch.setattr(trainer.Evaluator, "evaluate", evaluate_far)
    return far


@pytest.mark.parametrize("checkpoint", [{}, {"every_steps": 2}])
@pytest.mark.parametrize("points", [1, 2000])
def test_the_pace_is_that_of_a_device_that_works_on_behind_us(
    tiny_spec, assign, train, far, monkeypatch, checkpoint, points
):
    """From the first value that is shown, however often losses are logged."""
    monkeypatch.setattr(trainer, "CURVE_POINTS", points)
    outcome, seen = train(assign(tiny_spec(train={"epochs": 4}, checkpoint=checkpoint)))
    assert outcome.summary["images_per_second"] == pytest.approx(256, rel=0.01)
    shown = [progress.images_per_second for progress in seen if progress.images_per_second is not None]
    assert shown == pytest.approx([256] * len(shown), rel=0.01)


def test_a_device_has_its_next_step_before_it_has_done_the_last_and_no_more(tiny_spec, assign, train, far):
    """Though every step is logged; only the first step and every evaluation are waited for."""
    train(assign(tiny_spec(train={"epochs": 2}, checkpoint={"keep_best": 0})))
    first, second = far.queued[:6], far.queued[6:]  # five steps and an evaluation
    for queued in first[2:5], second[2:5]:
        assert queued == pytest.approx([1 - 0.001] * 3), "one step is queued, and no second one"


def test_the_eta_counts_all_that_is_left(tiny_spec, assign, train, far):
    _, seen = train(assign(tiny_spec(train={"epochs": 4}, checkpoint={"keep_best": 0})))
    evaluated = {progress.epoch: progress for progress in seen if progress.phase == "evaluating"}  # the last of each
    assert list(evaluated) == [1, 2, 3, 4]
    for progress in evaluated.values():
        assert progress.eta_seconds == pytest.approx(far.now - progress.heartbeat, rel=0.01, abs=0.01)


def test_a_loss_that_is_lost_between_two_logged_values_is_found_by_evaluation(tiny_spec, assign, train, monkeypatch):
    monkeypatch.setattr(trainer, "CURVE_POINTS", 1)
    outcome, _ = train(assign(tiny_spec(train={"optimizer": {"type": "sgd", "lr": 1e30}})))
    assert outcome.reason == "LOSS_NOT_FINITE"
    assert "on the val images" in outcome.message
    assert "after step 5" in outcome.message


def test_weights_that_are_not_finite_are_no_checkpoint(tiny_spec, assign, train, monkeypatch):
    """Else every later attempt would begin with them."""
    monkeypatch.setattr(trainer, "CURVE_POINTS", 1)
    assignment = assign(tiny_spec(train={"optimizer": {"type": "sgd", "lr": 1e30}}, checkpoint={"every_steps": 2}))
    outcome, _ = train(assignment)
    assert outcome.reason == "LOSS_NOT_FINITE"
    assert "the weights are not finite after step 2; no checkpoint" in outcome.message
    assert not list(assignment.folder.checkpoints.glob("*"))
