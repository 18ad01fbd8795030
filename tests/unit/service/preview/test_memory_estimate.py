"""The estimate of a preview against what three training steps really take, on this machine's CPU."""

import json
import os
import subprocess
import sys

import pytest

from cbam_core.datasets import DATASETS
from cbam_core.explain.site import AttentionSite
from cbam_core.spec import ExperimentSpec
from service.preview.memory_estimate import estimate
from service.preview.profiler import Measured, Question
from service.preview.profiler_process import measure

LEAST, MOST = 0.6, 1.5  # measured ÷ estimated: 0.84 and 0.92 when this was written
TRAIN = """
import gc, json, sys, torch
from cbam_core.networks import build_network
from cbam_core.spec import ExperimentSpec
from workers.train.distributed import ProcessGroup
from workers.train.learner import Learner

spec = ExperimentSpec.model_validate_json(sys.stdin.read())
torch.set_num_threads(1)

def resident(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))

def steps(model, images, labels, count):
    learner = Learner(spec.train, build_network(model, 1000, 3), ProcessGroup(0, 1, torch.device("cpu")))
    for step in range(count):
        learner.learn(images, labels, rate=0.01, step=step)

size, batch = spec.data.image_size, spec.train.global_batch_size
images, labels = torch.rand(batch, 3, size, size), torch.zeros(batch, dtype=torch.long)
steps(spec.model, images[:2], labels[:2], 1)  # what torch loads at its first step is not the network's
gc.collect()
before = resident("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the high-water mark begins anew
steps(spec.model, images, labels, 3)
print(json.dumps(resident("VmHWM") - before))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "batch", "optimizer"),
    [
        ({"backbone": "resnet18", "attention": {"type": "cbam"}}, 64, 96, {"type": "sgd"}),
        ({"backbone": "resnet50", "attention": {"type": "none"}}, 64, 48, {"type": "adamw"}),
    ],
    ids=lambda value: value["backbone"] if isinstance(value, dict) and "backbone" in value else None,
)
def test_the_estimate_is_near_what_training_takes(model, size, batch, optimizer):
    spec = ExperimentSpec.model_validate(
        {
            "name": "memory",
            "model": model,
            "data": {"dataset": "synthetic", "image_size": size},
            "train": {"global_batch_size": batch, "optimizer": optimizer},
        }
    )
    question = Question(model=spec.model, channels=3, classes=1000, image_size=size)
    fields = measure(json.loads(question.to_json()))
    measured = Measured(**fields | {"sites": tuple(AttentionSite(**site) for site in fields["sites"])})
    expected = estimate(spec, measured, DATASETS["synthetic"])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        input=spec.model_dump_json(),
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    taken, told = json.loads(done.stdout), expected.total - (expected.images or 0)
    print(f"{model['backbone']}: {taken / 2**20:.0f} MiB taken, {told / 2**20:.0f} MiB estimated, {taken / told:.2f}")
    assert LEAST < taken / told < MOST, f"{taken / 2**20:.0f} MiB taken, {told / 2**20:.0f} MiB estimated"
