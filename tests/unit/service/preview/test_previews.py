"""Previews: counted in a process of its own, an estimate of memory, and what a colleague would say."""

import asyncio
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from cbam_core.datasets import DATASETS
from cbam_core.explain.site import AttentionSite
from service.errors import PreviewUnavailable
from service.preview import profiler
from service.preview.memory_estimate import estimate, images_per_pass
from service.preview.profiler import Measured, NetworkProfiler
from service.preview.recipe_checks import RULES, RecipeContext, advice_on
from tests.support.specs import spec, spec_dict

SITE = AttentionSite("blocks.0", "CBAM", channels=64, height=8, width=8, parameters=100, macs=100)
MEASURED = Measured(1000, 10**6, (SITE,), kept_bytes_per_image=4096, largest_kept_bytes=512)


def advice(measured=MEASURED, **changes):
    """The codes by the pointers they point to."""
    one = spec(**changes)
    return {
        (found.pointer, found.code) for found in advice_on(RecipeContext(one, measured, DATASETS[one.data.dataset]))
    }


def model(**fields):
    return {"backbone": "cifar_resnet20"} | fields


def carrying(attention, **options):
    return model(attention={"type": attention} | options)


def train(**fields):
    return {"epochs": 90, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}} | fields


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"model": model(freeze=["layer1"])}, "/model/freeze", "frozen_at_random"),
        (
            {"model": carrying("cbam", reduction=32)},
            "/model/attention/reduction",
            "narrow_bottleneck",
        ),
        (
            {"model": carrying("cbam", kernel_size=9)},
            "/model/attention/kernel_size",
            "kernel_over_map",
        ),
        (
            {"model": carrying("triplet", kernel_size=9)},
            "/model/attention/kernel_size",
            "kernel_over_map",
        ),
        ({"model": carrying("bam", dilation=4)}, "/model/attention/dilation", "kernel_over_map"),
        ({"model": {"backbone": "resnet18"}}, "/model/stem", "stem_for_large_images"),
        ({"model": {"backbone": "resnet18", "pretrained": True}}, "/data/image_size", "other_size_than_published"),
        ({"model": {"backbone": "resnet18", "pretrained": True}}, "/model/pretrained", "grey_images"),
        ({"data": {"dataset": "digits", "augment": {"flip": 0.5}}}, "/data/augment/flip", "mirrored_digits"),
        (
            {"data": {"dataset": "cluttered_mnist", "augment": {"flip": 0.5}}},
            "/data/augment/flip",
            "mirrored_digits",
        ),
        (
            {"train": train(epochs=5), "data": {"dataset": "digits", "augment": {"mixup": 0.2}}},
            "/data/augment/mixup",
            "mixing_needs_epochs",
        ),
        (
            {"data": {"dataset": "imagefolder", "root": "/data", "augment": {"random_resized_crop": True}}},
            "/data/workers_per_rank",
            "crops_of_scaled_images",
        ),
        ({"train": train(global_batch_size=4)}, "/train/global_batch_size", "few_images_for_batch_norm"),
        ({"train": train(global_batch_size=2048)}, "/train/global_batch_size", "batch_over_dataset"),
        ({"train": train(global_batch_size=1024)}, "/train/optimizer/lr", "lr_unscaled"),
        ({"train": train(optimizer={"type": "sgd", "lr": 3.0})}, "/train/optimizer/lr", "lr_unscaled"),
        ({"train": train(optimizer={"type": "adamw", "lr": 0.1})}, "/train/optimizer/lr", "lr_unscaled"),
        ({"train": train(global_batch_size=1024)}, "/train/schedule/warmup_epochs", "no_warmup"),
        (
            {"train": train(schedule={"type": "cosine", "warmup_epochs": 40})},
            "/train/schedule/warmup_epochs",
            "long_warmup",
        ),
        ({"train": train(epochs=20, schedule={"type": "step"})}, "/train/schedule/step_epochs", "rate_never_falls"),
        (
            {"train": train(schedule={"type": "multistep", "milestones": [30, 90]})},
            "/train/schedule/milestones",
            "rate_never_falls",
        ),
        ({"train": train(ema={"decay": 0.9999})}, "/train/ema/decay", "slow_average"),
        ({"train": train(epochs=1, compile=True)}, "/train/compile", "compile_for_few_steps"),
        ({"train": train(epochs=1), "checkpoint": {"every_steps": 1000}}, "/checkpoint/every_steps", "no_checkpoint"),
        ({"train": train(precision="fp16")}, "/train/precision", "half_on_cpu"),
        ({"resources": {"gpus_per_worker": 1}}, "/train/channels_last", "cbam_not_fused"),
        ({"deadline_minutes": 0.001}, "/deadline_minutes", "deadline_too_short"),
    ],
)
def test_what_looks_odd_is_said_at_its_place(changes, pointer, code):
    fields = {"train": train(), "model": model(attention={"type": "cbam"})} | changes
    assert (pointer, code) in advice(**fields)


@pytest.mark.parametrize(
    ("resources", "there", "words"),
    [
        ({"gpus_per_worker": 1}, 0.0, "it takes 1 GPU and the cluster has none: it waits until there are more"),
        ({"gpus_per_worker": 1, "workers": 4}, 2.0, "it takes 4 GPUs and the cluster has 2: it waits"),
        ({"gpus_per_worker": 1, "workers": {"min": 2, "max": 8}}, 2.0, None),
        ({"gpus_per_worker": 0.5}, 1.0, None),
        ({"gpus_per_worker": 1}, None, None),
        ({"gpus_per_worker": 0}, 0.0, None),
    ],
)
def test_gpus_that_the_cluster_has_not_are_said(resources, there, words):
    one = spec(resources=resources, train=train())
    found = advice_on(RecipeContext(one, None, DATASETS["digits"], there))
    said = [warning.detail for warning in found if warning.code == "more_gpus_than_there_are"]
    assert len(said) == (words is not None)
    assert all(words in one for one in said)


def test_without_a_measured_network_the_other_rules_still_speak():
    fields = {"train": train(epochs=1, precision="fp16"), "model": carrying("cbam", reduction=32)}
    assert advice(None, **fields) == {
        place for place in advice(**fields) if place[1] not in ("narrow_bottleneck", "kernel_over_map")
    }


def test_a_sound_recipe_is_left_alone():
    assert advice(train=train(), model=model(attention={"type": "cbam", "reduction": 16, "kernel_size": 7})) == set()


@pytest.mark.parametrize("dataset", [{"dataset": "imagefolder", "workers_per_rank": 1}, {"dataset": "cifar10"}])
def test_crops_of_whole_images_and_of_small_ones_are_left_alone(dataset):
    data = {"root": "/data", "image_size": 32, "augment": {"random_resized_crop": True}} | dataset
    assert "crops_of_scaled_images" not in {code for _, code in advice(data=data)}


@pytest.mark.parametrize(
    "change",
    [{"train": train(channels_last=True)}, {"train": train(fused="off")}, {"model": model(attention={"type": "se"})}],
)
def test_a_training_that_is_fused_or_never_could_be_is_left_alone(change):
    fields = {"train": train(), "model": model(attention={"type": "cbam"}), "resources": {"gpus_per_worker": 1}}
    assert "cbam_not_fused" not in {code for _, code in advice(**(fields | change))}


def test_a_narrow_kernel_of_channels_is_noticed():
    few = Measured(1000, 10, (AttentionSite("a", "ECA", 8, 8, 8, 3, 3),), 1, 1)
    found = advice(few, train=train(), model=model(attention={"type": "eca", "kernel_size": 9}))
    assert found == {("/model/attention/kernel_size", "kernel_over_channels")}


def test_attention_that_the_backbone_has_of_its_own_is_noticed():
    inside = replace(MEASURED, inner_attention=16)
    found = advice(inside, train=train(), model=model(backbone="timm:efficientnet_b0"))
    assert ("/model/backbone", "attention_inside") in found


def test_every_rule_has_a_case():
    assert len(RULES) == 14, "a new rule wants a line in the table above"


def test_memory_is_the_sum_that_the_formula_says():
    """Sixteen images a pass, 1000 parameters: written out by hand."""
    one = spec(
        train={
            "epochs": 1,
            "global_batch_size": 64,
            "accumulate": 2,
            "optimizer": {"type": "adamw"},
            "ema": {"decay": 0.9},
        },
        resources={"workers": 2},
    )
    found = estimate(one, MEASURED, DATASETS["digits"])
    assert images_per_pass(one) == 16
    assert (found.weights, found.gradients, found.optimizer, found.average) == (4000, 4000, 8000, 4000)
    assert found.activations == 16 * (4096 + 2 * 512)
    assert found.images == (1442 + 355) * 8 * 8
    assert found.total == 4000 + 4000 + 8000 + 4000 + 16 * 5120 + 1797 * 64


def test_a_preview_says_what_is_counted_estimated_and_odd(http):
    body = spec_dict(model=model(attention={"type": "cbam", "kernel_size": 7}))
    shown = http.post("/v1/experiments/preview", json=body)
    assert shown.status_code == 200, shown.text
    preview = shown.json()
    assert {(site["height"], site["width"]) for site in preview["sites"]} == {(8, 8), (4, 4), (2, 2)}
    assert ("/model/attention/kernel_size", "kernel_over_map") in {
        (found["pointer"], found["code"]) for found in preview["warnings"]
    }
    assert preview["memory"]["total"] > preview["memory"]["activations"] > 0
    assert preview["images_per_pass"] == 128
    template = http.post("/v1/experiments/preview", json={"template": "digits-cbam"})
    assert template.status_code == 200, template.text


@pytest.mark.parametrize(
    ("fields", "pointer", "word"),
    [
        ({"backbone": "timm:no_such_network"}, "/model/backbone", "no_such_network"),
        ({"backbone": "timm:vit_tiny_patch16_224", "attention": {"type": "cbam"}}, "/model", "timm"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(http, fields, pointer, word):
    answer = http.post("/v1/experiments/preview", json=spec_dict(model=fields))
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert (error["pointer"], word in error["detail"]) == (pointer, True)


def test_options_that_timms_optimiser_refuses_are_refused(http):
    for betas, status in (([0.9, 0.95], 200), ([0.9, 1.5], 422)):
        optimizer = {"type": "timm:lion", "lr": 0.001, "options": {"betas": betas}}
        body = spec_dict(train={"epochs": 2, "global_batch_size": 64, "optimizer": optimizer})
        answer = http.post("/v1/experiments/preview", json=body)
        assert answer.status_code == status, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "/train/optimizer"
    assert error["detail"].startswith("timm:lion cannot train with")


@pytest.mark.parametrize(("type_", "slots"), [("timm:lion", 1), ("timm:adopt", 2), ("timm:adan", 4)])
def test_memory_counts_what_timms_optimiser_remembers(type_, slots):
    one = spec(train=train(optimizer={"type": type_, "lr": 0.001}))
    assert estimate(one, MEASURED, DATASETS["digits"]).optimizer == slots * 4 * MEASURED.parameters


def test_previews_at_once_are_answered_one_by_one_and_too_many_are_sent_away(http, monkeypatch):
    monkeypatch.setattr(profiler, "MOST_WAITING", 2)
    statuses = []

    def ask(size):
        body = spec_dict(data={"dataset": "digits", "image_size": size})
        answer = http.post("/v1/experiments/preview", json=body)
        statuses.append((answer.status_code, answer.headers.get("Retry-After")))

    threads = [threading.Thread(target=ask, args=(8 + index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {(200, None), (503, "2")}
    assert statuses.count((200, None)) >= 2


def test_who_asks_for_many_previews_leaves_room_for_others(monkeypatch):
    monkeypatch.setattr(profiler, "MOST_OF_ONE_CALLER", 2)

    async def ask_at_once():
        asked, answer = NetworkProfiler(), asyncio.Event()

        async def exchange(_request):
            await answer.wait()
            return b"{}"

        asked._exchange = exchange
        tasks = [
            asyncio.create_task(asked._answer(str(number), "/model", caller))
            for number, caller in enumerate(["ada"] * 4 + ["bob"])
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        answer.set()
        return await asyncio.gather(*tasks, return_exceptions=True), asked._waiting

    answers, waiting = asyncio.run(ask_at_once())
    assert [type(answer) for answer in answers] == [dict, dict, PreviewUnavailable, PreviewUnavailable, dict]
    assert "of ada" in str(answers[2])
    assert not waiting


def test_a_worker_that_is_gone_is_started_again(http):
    body = spec_dict()
    assert http.post("/v1/experiments/preview", json=body).status_code == 200
    worker = http.app.state.network_profiler._process
    worker.kill()
    body["data"]["image_size"] = 9
    assert http.post("/v1/experiments/preview", json=body).status_code == 200
    assert http.app.state.network_profiler._process.pid != worker.pid


def test_the_server_itself_loads_no_torch():
    code = """
import sys, tempfile
from fastapi.testclient import TestClient
from service.api.app import create_app
from service.settings import Settings
from tests.support.specs import spec_dict
settings = Settings(home=tempfile.mkdtemp(), database_url="")
with TestClient(create_app(settings), base_url="http://127.0.0.1") as http:
    answer = http.post("/v1/experiments/preview", json=spec_dict())
    assert answer.status_code == 200, answer.text
    http.get("/v1/models"), http.get("/v1/attentions"), http.get("/v1/templates")
print([name for name in ("torch", "timm", "ray", "mlflow") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
