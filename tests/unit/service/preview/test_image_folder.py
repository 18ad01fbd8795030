"""A preview counts the folder of images that the server sees, and warns of one that it does not."""

import asyncio

import pytest

from cbam_core.data_roots import ANYWHERE
from cbam_core.datasets import DATASETS
from cbam_core.image_folders.layout import layout_of
from cbam_core.recipe import DataSpec
from service.preview import image_folder
from service.preview.image_folder import look_at
from service.preview.memory_estimate import estimate
from tests.support.specs import spec, spec_dict
from tests.unit.service.preview.test_previews import MEASURED


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def looked_at(root, opened, dataset="imagefolder"):
    """Classes, images to train and to test on, and the warnings by their codes."""
    facts, warnings = asyncio.run(look_at(DataSpec(dataset=dataset, root=str(root)), [opened]))
    found = {warning.code: warning.detail for warning in warnings}
    assert {warning.pointer for warning in warnings} <= {"/data/root"}
    return (facts.classes, facts.train_images, facts.test_images), found


IMAGES = [f"{part}/{name}/{number}.jpg" for part in ("train", "val") for name in "abc" for number in range(2)]
UNKNOWN = (None, None, None)


def test_a_preview_has_the_classes_and_steps_of_the_training(http, settings):
    touch(settings.data_roots[0], *IMAGES, "train/a/x.gif")
    body = spec_dict(data={"dataset": "imagefolder", "root": str(settings.data_roots[0])})
    body["train"]["global_batch_size"] = 2
    answer = http.post("/v1/experiments/preview", json=body)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["classes"], shown["train_images"], shown["steps_per_epoch"], shown["total_steps"]) == (3, 5, 2, 2)
    assert (shown["val_images"], shown["test_images"]) == (1, 6)
    val = "1 val (10% cut from train, of every class, seed 0)"
    assert shown["split"] == f"5 train (the folder train), {val}, 6 test (the folder val)"
    assert shown["memory"]["images"] == (6 + 6) * 3 * 32**2
    digits = http.post(
        "/v1/experiments/preview", json=spec_dict(data={"dataset": "cifar10", "root": body["data"]["root"]})
    )
    assert digits.json()["parameters"] - shown["parameters"] == 7 * 65, "ten classes are seven more than three"
    assert "beside the images to train on are left out: 1 .gif" in [found["detail"] for found in shown["warnings"]]


def test_a_folder_is_counted(tmp_path):
    touch(tmp_path, *IMAGES)
    assert looked_at(tmp_path, tmp_path) == ((3, 6, 6), {})


@pytest.mark.parametrize("dataset", ["imagefolder", "cifar10"])
def test_a_folder_that_is_not_seen_is_a_warning(tmp_path, dataset):
    counted, warnings = looked_at(tmp_path / "mine", tmp_path, dataset)
    assert counted == (UNKNOWN if dataset == "imagefolder" else (10, 50_000, 10_000))
    assert "mine is not seen from this server" in warnings["folder_not_counted"]


def test_a_folder_that_the_training_will_refuse_is_a_warning(tmp_path):
    touch(tmp_path, *IMAGES)
    (tmp_path / "train" / "a" / "round").symlink_to(tmp_path / "train")
    counted, warnings = looked_at(tmp_path, tmp_path)
    assert counted == UNKNOWN
    assert "the training will refuse the folder" in warnings["folder_refused"]
    assert "are the same folder" in warnings["folder_refused"]


def test_a_folder_that_takes_too_long_is_a_warning(tmp_path, monkeypatch):
    touch(tmp_path, *IMAGES)
    monkeypatch.setattr(image_folder, "COUNTING_SECONDS", -1.0)
    counted, warnings = looked_at(tmp_path, tmp_path)
    assert counted == UNKNOWN
    assert "was not listed within" in warnings["folder_not_counted"]
    layout = layout_of(tmp_path, "folder", ANYWHERE)
    monkeypatch.setattr(image_folder, "count_images", lambda *_, **__: image_folder.FolderCounts(3, None, "", layout))
    counted, warnings = looked_at(tmp_path, tmp_path)
    assert counted == (3, None, None)
    assert "has more images than were counted" in warnings["folder_not_counted"]


@pytest.mark.parametrize(("workers_per_rank", "expected"), [(0, None), (2, 0)])
def test_images_that_stay_on_disk_take_no_memory_of_the_device(workers_per_rank, expected):
    data = {"dataset": "imagefolder", "root": "/data", "workers_per_rank": workers_per_rank}
    assert estimate(spec(data=data), MEASURED, DATASETS["imagefolder"]).images == expected
