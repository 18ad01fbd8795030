"""A training goes on with the data it began with, or says what differs."""

import shutil

import numpy as np
import pytest
from PIL import Image

from cbam_core.errors import DataError
from cbam_core.spec import DataSpec
from workers.data import load_dataset
from workers.data.datasets.identity import check_same_data, names_digest
from workers.train.checkpoint import Checkpoints


def write_images(root, **classes):
    """So many noisy images of each class to train on, and two to test on."""
    random = np.random.default_rng(0)
    for name, count in classes.items():
        for part, images in (("train", count), ("val", 2)):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(images):
                pixels = random.integers(256, size=(8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")


@pytest.fixture
def paused(tmp_path, tiny_spec, assign, train):
    """The folder of a training that paused after its first epoch, and its assignment."""
    root = tmp_path / "mine"
    write_images(root, cat=6, dog=6)

    def pause(workers_per_rank):
        data = {"dataset": "imagefolder", "root": str(root), "workers_per_rank": workers_per_rank, "val": "folder"}
        spec = tiny_spec(data=data, train={"epochs": 3, "global_batch_size": 4})
        first = assign(spec, data_roots=(str(tmp_path),))
        outcome, _ = train(first, stop_when=lambda progress: progress.step == 4 and "pause")
        assert outcome.outcome == "paused"
        return root, assign(spec, data_roots=(str(tmp_path),), attempt=2)

    return pause


def rename_class(root):
    for part in ("train", "val"):
        (root / part / "cat").rename(root / part / "zebra")


CHANGES = {
    "a class renamed": (rename_class, "classes that are gone: cat; classes that are new: zebra;"),
    "a class more": (
        lambda root: write_images(root, owl=2),
        "classes that are new: owl; train has 14 images and had 12; val has 6 images and had 4",
    ),
    "a class gone": (
        lambda root: (write_images(root, ant=1), [shutil.rmtree(root / part / "dog") for part in ("train", "val")]),
        "classes that are gone: dog; classes that are new: ant; train has 7 images and had 12",
    ),
    "more images": (
        lambda root: write_images(root, cat=9),
        "checkpoint was trained on: train has 15 images and had 12",
    ),
    "fewer to test on": (lambda root: (root / "val/cat/1.png").unlink(), "val has 3 images and had 4"),
    "an image renamed": (
        lambda root: (root / "train/cat/0.png").rename(root / "train/cat/x.png"),
        "as many images, but some have other names",
    ),
    "an image in another class": (
        lambda root: (root / "train/cat/0.png").rename(root / "train/dog/x.png"),
        "as many images, but some have other names",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_end_a_resume_with_what_differs(paused, train, change):
    root, again = paused(workers_per_rank=0)
    harm, words = CHANGES[change]
    harm(root)
    outcome, _ = train(again)
    assert (outcome.outcome, outcome.reason) == ("failed", "DATA_ERROR")
    assert words in outcome.message
    assert "put the data back as they were and resume" in outcome.message


def test_images_that_stay_on_disk_are_known_too(paused, train):
    root, again = paused(workers_per_rank=1)
    rename_class(root)
    outcome, _ = train(again)
    assert outcome.reason == "DATA_ERROR"
    assert "classes that are gone: cat" in outcome.message


def test_the_same_data_go_on_wherever_they_lie(paused, train, tmp_path):
    root, again = paused(workers_per_rank=0)
    root.rename(tmp_path / "moved")
    root.symlink_to(tmp_path / "moved")
    (tmp_path / "moved" / "train" / "cat" / ".DS_Store").touch()
    outcome, _ = train(again)
    assert outcome.outcome == "succeeded", outcome.message


def test_a_checkpoint_of_before_goes_on_with_what_is_there(paused, train):
    root, again = paused(workers_per_rank=0)
    checkpoints = Checkpoints(again.folder.checkpoints, again.spec.checkpoint)
    step = checkpoints.newest()
    state = checkpoints.load(step)
    del state["data"]
    checkpoints.save(step, state, {})
    (root / "train/cat/0.png").rename(root / "train/cat/x.png")
    outcome, _ = train(again)
    assert outcome.outcome == "succeeded", outcome.message


def test_sets_in_memory_are_known_by_classes_and_numbers(tiny_spec, assign, train):
    assignment = assign(tiny_spec())
    train(assignment)
    checkpoints = Checkpoints(assignment.folder.checkpoints, assignment.spec.checkpoint)
    saved = checkpoints.load(checkpoints.newest())["data"]
    assert saved == {"classes": list("0123456789"), "images": {"train": 1298, "val": 144, "test": 355}, "names": None}


def test_the_digest_depends_on_the_names_below_the_root_alone(tmp_path):
    paths = [tmp_path / "a" / "1.png", tmp_path / "b" / "\udcff.png"]
    moved = [path.parents[2] / "else" / path.parent.name / path.name for path in paths]
    assert names_digest(tmp_path, paths) == names_digest(tmp_path.parent / "else", reversed(moved))
    assert names_digest(tmp_path, paths) != names_digest(tmp_path, paths[:1])
    joined = [tmp_path / "a" / "1.pngb", tmp_path / "\udcff.png"]
    assert names_digest(tmp_path, paths) != names_digest(tmp_path, joined)


def test_a_file_that_goes_to_another_part_makes_other_data(tmp_path):
    """Which images are cut off may change with a file that becomes a copy of another, or stops being one."""
    write_images(tmp_path, cat=20, dog=20)
    shutil.rmtree(tmp_path / "val")
    data = DataSpec(dataset="imagefolder", root=str(tmp_path), image_size=8)
    before = load_dataset(data, (str(tmp_path),))
    (tmp_path / "train/cat/1.png").write_bytes((tmp_path / "train/cat/0.png").read_bytes())
    after = load_dataset(data, (str(tmp_path),))
    assert sorted(before.train.paths()) != sorted(after.train.paths()), "else this test shows nothing"
    with pytest.raises(DataError, match="or are in another part"):
        check_same_data(before.identity, after.identity)
