"""No knob is accepted and dropped: every field of the recipe changes the training."""

import pytest
import torch
from safetensors.torch import load_file

from cbam_core.recipe import AugmentSpec, DataSpec, TrainSpec
from cbam_core.timm_options import TimmOptimizerSpec
from workers.data import load_dataset
from workers.data.batches import Batches, RankShard

BASE = {
    "model": {"attention": {"type": "none"}},
    "train": {"epochs": 2, "global_batch_size": 640, "optimizer": {"type": "sgd", "lr": 0.05}},
}

LION = {"type": "timm:lion", "lr": 0.001, "weight_decay": 0.1}
CHANGES = {
    "train.epochs": {"epochs": 1},
    "train.global_batch_size": {"global_batch_size": 320},
    "train.optimizer.lr": {"optimizer": {"type": "sgd", "lr": 0.04}},
    "train.optimizer.momentum": {"optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.5}},
    "train.optimizer.nesterov": {"optimizer": {"type": "sgd", "lr": 0.05, "nesterov": True}},
    "train.optimizer.weight_decay": {"optimizer": {"type": "sgd", "lr": 0.05, "weight_decay": 0.1}},
    "train.optimizer.decay_norms_and_biases": {
        "optimizer": {"type": "sgd", "lr": 0.05, "decay_norms_and_biases": False}
    },
    "train.optimizer.type": {"optimizer": {"type": "adamw"}},
    "train.optimizer.lamb": {"optimizer": {"type": "lamb"}},
    "train.optimizer.timm": {"optimizer": LION},
    "train.schedule.type": {"schedule": {"type": "constant"}},
    "train.schedule.warmup_epochs": {"schedule": {"type": "cosine", "warmup_epochs": 1}},
    "train.schedule.min_lr": {"schedule": {"type": "cosine", "min_lr": 0.01}},
    "train.schedule.step": {"schedule": {"type": "step", "step_epochs": 1}},
    "train.schedule.multistep": {"schedule": {"type": "multistep", "milestones": [1], "gamma": 0.5}},
    "train.layer_decay": {"layer_decay": 0.5},
    "train.accumulate": {"accumulate": 2},
    "train.loss": {"loss": "bce"},
    "train.class_weights": {"class_weights": "balanced"},
    "train.label_smoothing": {"label_smoothing": 0.1},
    "train.clip_norm": {"clip_norm": 0.1},
    "train.ema": {"ema": {"decay": 0.9}},
    "train.precision": {"precision": "bf16"},
    "train.seed": {"seed": 1},
    "train.seeds": {"seeds": {"data": 1}},
    "data.val": {"val": {"seed": 1}},
    "data.image_size": {"image_size": 10},
    "data.augment.crop_padding": {"augment": {"crop_padding": 1}},
    "data.augment.random_resized_crop": {"augment": {"random_resized_crop": True}},
    "data.augment.flip": {"augment": {"flip": 0.5}},
    "data.augment.brightness": {"augment": {"brightness": 0.3}},
    "data.augment.contrast": {"augment": {"contrast": 0.3}},
    "data.augment.rand_augment": {"augment": {"rand_augment": {}}},
    "data.augment.trivial_augment": {"augment": {"trivial_augment": True}},
    "data.augment.erasing": {"augment": {"erasing": 0.5}},
    "data.augment.erasing_fill": {"augment": {"erasing": 0.5, "erasing_fill": "mean"}},
    "data.augment.mixup": {"augment": {"mixup": 0.4}},
    "data.augment.cutmix": {"augment": {"cutmix": 1.0}},
}
ELSEWHERE = {
    "data.dataset": "test_datasets",
    "data.root": "test_datasets",
    "data.columns": "test_tables: which columns are read",
    "data.download": "test_download",
    "data.crop_pct": "test_datasets: of an imagefolder, the images it is tested on",
    "data.workers_per_rank": "test_loaders: other processes, the same bits",
    "data.augment": "field by field",
    "data.augment.saturation": "below, as digits have no colours",
    "data.augment.hue": "below",
    "train.optimizer": "field by field",
    "train.schedule": "field by field",
    "train.channels_last": "test_learner: the same numbers in another order in memory",
    "train.sync_batch_norm": "test_training_gang: batch statistics of two ranks are those of the whole batch",
    "train.compile": "test_learner: a compiled training follows the eager one",
    "train.fused": "test_fused, test_fused_on_gpu: other kernels, on GPUs alone; test_trainer: refused by name",
    "train.attention_lr_scale": "test_initial_weights: the rate of each weight",
    "train.deterministic": "below",
}


OF_TIMM = {  # each beside an optimiser that is the same but for this field
    "type": (LION, {"type": "timm:lionc"}),
    "lr": (LION, {"lr": 0.002}),
    "weight_decay": (LION, {"weight_decay": 0.2}),
    "decay_norms_and_biases": (LION, {"decay_norms_and_biases": False}),
    "options": (LION, {"options": {"betas": [0.5, 0.9]}}),
    "momentum": ({"type": "timm:muon", "lr": 0.01}, {"momentum": 0.5}),
}


@pytest.fixture(scope="module")
def plain_losses():
    return {}


def losses(seen):
    return tuple(progress.metrics.get("train/loss") for progress in seen if progress.phase == "training")


def test_every_field_is_here():
    fields = {f"train.{name}" for name in TrainSpec.model_fields} | {f"data.{name}" for name in DataSpec.model_fields}
    fields |= {f"data.augment.{name}" for name in AugmentSpec.model_fields}
    assert fields <= set(CHANGES) | set(ELSEWHERE)


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_changes_the_training(tiny_spec, assign, train, plain_losses, field):
    part = field.split(".")[0]
    spec = tiny_spec(**{**BASE, part: BASE.get(part, {}) | CHANGES[field]})
    assignment = assign(spec)
    outcome, seen = train(assignment)
    assert outcome.outcome == "succeeded", outcome.message
    if not plain_losses:
        other = assign(tiny_spec(**BASE), experiment_id="plain")
        _, plain_losses["seen"] = train(other)
        plain_losses["weights"] = load_file(other.folder.weights)
    weights = load_file(assignment.folder.weights)
    same = all(weights[name].equal(value) for name, value in plain_losses["weights"].items())
    assert not same or losses(seen) != losses(plain_losses["seen"])


@pytest.mark.parametrize("field", TimmOptimizerSpec.model_fields)
def test_a_field_of_timms_optimisers_changes_the_training(tiny_spec, assign, train, field):
    base, change = OF_TIMM[field]
    weights = []
    for number, optimizer in enumerate((base, base | change)):
        one = assign(
            tiny_spec(model=BASE["model"], train={"epochs": 2, "optimizer": optimizer}), experiment_id=f"e{number}"
        )
        outcome, _ = train(one)
        assert outcome.outcome == "succeeded", outcome.message
        weights.append(load_file(one.folder.weights))
    assert any(not weights[0][name].equal(weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("type_", ["timm:lion", "timm:adopt", "timm:cnadamc"])
def test_a_resume_with_timms_optimiser_gives_the_bits_of_the_unbroken_training(tiny_spec, assign, train, type_):
    optimizer = {"type": type_, "lr": 0.01, "weight_decay": 0.1, "decay_norms_and_biases": False}
    spec = tiny_spec(train={"epochs": 2, "optimizer": optimizer, "schedule": {"type": "cosine", "warmup_epochs": 0.5}})
    assert spec.train.deterministic
    unbroken, broken = (assign(spec, experiment_id=name) for name in ("unbroken", "broken"))
    _, whole = train(unbroken)
    _, first = train(broken, stop_when=lambda progress: progress.step == 7 and "pause")
    _, rest = train(assign(spec, experiment_id="broken", attempt=2, token="t2"))
    assert losses(first) + losses(rest) == losses(whole)
    ours, theirs = load_file(broken.folder.weights), load_file(unbroken.folder.weights)
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("fields", "others"),
    [
        ({}, {"saturation": 0.5}),
        ({}, {"hue": 0.5}),
        ({"rand_augment": {}}, {"rand_augment": {"num_ops": 3}}),
        ({"rand_augment": {}}, {"rand_augment": {"magnitude": 20}}),
    ],
)
def test_a_field_changes_the_images(fields, others):
    dataset = load_dataset(DataSpec(dataset="synthetic", image_size=16))
    images = [
        next(Batches(dataset, RankShard(0, 1, 8), seed=0, augment=AugmentSpec.model_validate(spec)).train_from(0))[0]
        for spec in (fields, others)
    ]
    assert not torch.equal(*images)


def test_deterministic_is_switched_on_for_the_training_and_off_behind_it(tiny_spec, assign, train):
    during = []

    def look(progress):
        during.append(torch.are_deterministic_algorithms_enabled())

    for deterministic in (False, True):
        train(
            assign(tiny_spec(train={"deterministic": deterministic}), experiment_id=str(deterministic)), stop_when=look
        )
    assert set(during[: len(during) // 2 - 1]) == {False}
    assert True in during
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_resume_with_everything_switched_on_gives_the_bits_of_the_unbroken_training(tiny_spec, assign, train):
    spec = tiny_spec(
        train={
            "epochs": 2,
            "accumulate": 2,
            "ema": {"decay": 0.9, "buffers": "average"},
            "clip_norm": 1.0,
            "class_weights": "balanced",
            "label_smoothing": 0.1,
            "precision": "bf16",
            "optimizer": {"type": "adamw"},
            "schedule": {"type": "cosine", "warmup_epochs": 0.5},
        },
        data={
            "augment": {
                "crop_padding": 1,
                "flip": 0.5,
                "rand_augment": {},
                "brightness": 0.2,
                "erasing": 0.3,
                "erasing_fill": "mean",
                "mixup": 0.2,
                "cutmix": 1.0,
            }
        },
    )
    unbroken = assign(spec, experiment_id="unbroken")
    _, whole = train(unbroken)
    broken = assign(spec, experiment_id="broken")
    _, first = train(broken, stop_when=lambda progress: progress.step == 7 and "pause")
    _, rest = train(assign(spec, experiment_id="broken", attempt=2, token="t2"))
    assert losses(first) + losses(rest) == losses(whole)
    ours, theirs = load_file(broken.folder.weights), load_file(unbroken.folder.weights)
    assert all(ours[name].equal(theirs[name]) for name in theirs)
