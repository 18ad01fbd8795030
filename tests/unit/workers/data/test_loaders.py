"""Images read ahead by processes: the same bits for any number of them, and none of them left behind."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TV

from cbam_core.data_roots import ANYWHERE
from cbam_core.errors import DataError, LoaderDied
from cbam_core.spec import AugmentSpec, DataSpec
from workers.data import load_dataset
from workers.data.batches import Batches, RankShard
from workers.data.datasets.base import Order
from workers.data.datasets.decoding import decode
from workers.data.loaders import BATCHES_AHEAD, Loader

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty photographs of noise in two classes, wider than high, and eight to test on."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 4)):
        for name in ("ants", "bees"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(256, size=(40, 56, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number:02}.jpg")
    return root


def open_folder(root, **fields):
    data = DataSpec(dataset="imagefolder", root=str(root), image_size=16, workers_per_rank=1, val="folder", **fields)
    return load_dataset(data, (str(root),))


def batches_of(dataset, **fields):
    augment = AugmentSpec.model_validate({"random_resized_crop": True, "flip": 0.5, "mixup": 0.2, "brightness": 0.3})
    return Batches(dataset, RankShard(0, 1, 8), seed=3, augment=augment, **fields)


@pytest.mark.parametrize("processes", [1, 3])
def test_any_number_of_processes_brings_the_same_bits_from_any_step(folder, processes):
    dataset = open_folder(folder)
    expected = list(islice(batches_of(dataset).train_from(0), 12))
    for first in (0, 4):
        training = batches_of(dataset, loaders=processes).train_from(first)
        for (images, targets), (same_images, same_targets) in zip(training, expected[first:], strict=False):
            assert torch.equal(images, same_images)
            assert torch.equal(targets, same_targets)
            if images is expected[-1]:
                break
        training.close()


def test_sets_in_memory_come_through_processes_as_they_come_without():
    dataset = load_dataset(DataSpec(dataset="synthetic", image_size=16))
    expected = islice(batches_of(dataset).train_from(5), 4)
    streamed = islice(batches_of(dataset, loaders=2).train_from(5), 4)
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(streamed, expected, strict=True))


@pytest.mark.parametrize("crop_pct", [1.0, 0.8])
def test_the_test_images_are_those_of_the_resident_set_every_time(folder, crop_pct):
    data = DataSpec(dataset="imagefolder", root=str(folder), image_size=16, crop_pct=crop_pct, val="folder")
    resident = load_dataset(data, (str(folder),)).val.images
    batches = batches_of(open_folder(folder, crop_pct=crop_pct), loaders=2)
    for _ in range(2):
        streamed = torch.cat([images.clone() for images, _ in batches.evaluated("val")])
        torch.testing.assert_close(streamed, batches.normalise(resident.float()), rtol=0, atol=0)


def test_the_statistics_of_a_sample_are_near_those_of_all(folder):
    data = DataSpec(dataset="imagefolder", root=str(folder), image_size=16, val="folder")
    resident, streamed = load_dataset(data, (str(folder),)), open_folder(folder)
    assert streamed.mean == pytest.approx(resident.mean, abs=0.02)
    assert streamed.std == pytest.approx(resident.std, abs=0.02)


def test_a_random_part_is_cut_from_the_whole_image_as_torchvision_does(tmp_path):
    """A quarter of the width and half of the height of 80×40 pixels: the square of 20 whose place is drawn."""
    pixels = np.random.default_rng(0).integers(256, size=(40, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    crop = torch.tensor([(0.125 - 0.08) / 0.92, 0.5, 0.5, 1.0], dtype=torch.float64)
    theirs = TV.resized_crop(Image.fromarray(pixels), top=20, left=30, height=20, width=20, size=[16, 16])
    ours = decode(tmp_path / "image.png", 16, crop, roots=ANYWHERE)
    assert np.array_equal(ours.transpose(1, 2, 0), theirs)


def test_a_photograph_is_decoded_at_no_more_than_is_wanted(tmp_path):
    """JPEGs scale while they are decoded; a part still has to have the pixels it becomes."""
    smooth = np.linspace(0, 255, 1600, dtype=np.uint8)[None, :, None].repeat(1200, 0).repeat(3, 2)
    Image.fromarray(smooth).save(tmp_path / "large.jpg")
    crop = torch.tensor([0.0, 0.5, 0.0, 0.5])
    part = decode(tmp_path / "large.jpg", 32, crop, roots=ANYWHERE)[0].astype(int)
    width = (0.08 / (1600 / 1200)) ** 0.5
    assert part[16, 0] == pytest.approx(0, abs=4)
    assert part[16, -1] == pytest.approx(255 * width, abs=4)


def test_no_process_reads_further_ahead_than_it_may(folder):
    asked = []

    def orders():
        for number in range(40):
            asked.append(number)
            yield Order(torch.tensor([number]))

    loader = iter(Loader(open_folder(folder).train, orders(), processes=2, device=CPU))
    for taken in range(1, 6):
        next(loader)
        assert len(asked) <= taken + BATCHES_AHEAD
    loader.close()


def test_a_damaged_image_is_told_by_name_and_without_a_traceback(folder, tmp_path):
    dataset = open_folder(folder)
    order = Order(torch.tensor([0, 1]))
    path = dataset.train._path(1)
    healthy = path.read_bytes()
    path.write_bytes(healthy[:200])
    try:
        with pytest.raises(DataError, match=r"01\.jpg.*copy it again") as caught:
            list(Loader(dataset.train, [order], processes=1, device=CPU))
    finally:
        path.write_bytes(healthy)
    assert "Traceback" not in str(caught.value)


def test_a_process_that_is_killed_is_a_loader_that_died(folder):
    loader = iter(Loader(open_folder(folder).train, itertools.repeat(Order(torch.arange(4))), processes=2, device=CPU))
    next(loader)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(LoaderDied, match=r"exit code -9.*lower data\.workers_per_rank"):
        list(itertools.islice(loader, 10))
    assert not multiprocessing.active_children(), "the other one is ended too"


def test_what_breaks_in_a_process_is_told_with_where(folder):
    with pytest.raises(IndexError) as caught:
        list(Loader(open_folder(folder).train, [Order(torch.tensor([1000]))], processes=1, device=CPU))
    assert "in take" in caught.value.__notes__[0]


def test_closing_the_training_ends_its_processes(folder):
    training = batches_of(open_folder(folder), loaders=2).train_from(0)
    next(training)
    assert len(multiprocessing.active_children()) == 2
    training.close()
    assert not multiprocessing.active_children()


RANK = """
import sys, time
from pathlib import Path
import torch
from workers.data.datasets.base import Order
from cbam_core.data_roots import ANYWHERE
from cbam_core.spec import DataSpec
from workers.data.datasets.imagefolder import open_imagefolder
from workers.data.loaders import Loader
def orders():
    while True:
        yield Order(torch.arange(4))
if __name__ == "__main__":
    data = DataSpec(dataset="imagefolder", root=sys.argv[1], image_size=16)
    images = open_imagefolder(Path(sys.argv[1]), data, roots=ANYWHERE).train
    batches = iter(Loader(images, orders(), processes=2, device=torch.device("cpu")))
    next(batches)
    print("reading", flush=True)
    while True:
        next(batches)
        time.sleep(0.01)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_processes_end_with_their_rank_and_not_before(folder, tmp_path, how):
    """SIGKILL leaves no time to clean up. Ctrl-C and SIGTERM to the group, meant for the rank, do not end them."""
    (tmp_path / "rank.py").write_text(RANK)
    command = [sys.executable, str(tmp_path / "rank.py"), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}
    rank = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert rank.stdout.readline() == "reading\n"
        children = psutil.Process(rank.pid).children(recursive=True)
        assert len(children) >= 4, "two loaders, the server that forked them, and multiprocessing's tracker"
        rank.send_signal(signal.SIGSTOP)
        if how is signal.SIGSTOP:
            for child in children:
                child.send_signal(signal.SIGINT)
                child.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert all(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    finally:
        rank.kill()
        rank.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
