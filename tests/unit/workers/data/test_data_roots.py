"""What every reader may open: what lies, resolved, below the folders opened for data."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch

from cbam_core.data_roots import ANYWHERE, DataRoots
from cbam_core.errors import DataError
from cbam_core.spec import DataSpec
from tests.support.specs import spec_dict
from tests.unit.workers.data.test_datasets import make_cifar, make_fashion, make_imagefolder
from workers.data import load_dataset
from workers.data.datasets.base import Order
from workers.data.datasets.decoding import decode
from workers.data.datasets.download import download


@pytest.fixture
def opened(tmp_path):
    """The one folder that is opened for data."""
    (tmp_path / "opened").mkdir()
    return tmp_path / "opened"


@pytest.fixture
def private(tmp_path):
    """A folder that is not."""
    (tmp_path / "private").mkdir()
    return tmp_path / "private"


def load(opened, dataset, **fields):
    return load_dataset(DataSpec(dataset=dataset, root=str(opened / "mine"), **fields), (str(opened),))


def lead_out(path, private):
    """Move `path` to a folder that is not opened, and leave a link to it."""
    place = private / path.name
    shutil.move(path, place)
    path.symlink_to(place)


MAKERS = {"cifar10": make_cifar, "fashion_mnist": make_fashion, "imagefolder": make_imagefolder}
LINKS = [
    ("imagefolder", "train"),
    ("imagefolder", "val"),
    ("imagefolder", "train/bees"),
    ("imagefolder", "val/ants"),
    ("imagefolder", "train/ants/3.png"),
    ("imagefolder", "val/bees/1.png"),
    ("cifar10", "cifar-10-batches-py"),
    ("cifar10", "cifar-10-batches-py/batches.meta"),
    ("cifar10", "cifar-10-batches-py/data_batch_3"),
    ("cifar10", "cifar-10-batches-py/test_batch"),
    ("fashion_mnist", "FashionMNIST"),
    ("fashion_mnist", "FashionMNIST/raw"),
    ("fashion_mnist", "FashionMNIST/raw/train-images-idx3-ubyte.gz"),
    ("fashion_mnist", "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz"),
]


@pytest.mark.parametrize("workers_per_rank", [0, 1])
@pytest.mark.parametrize(("dataset", "link"), LINKS)
def test_a_link_that_leads_out_is_refused_by_name_whatever_it_is(opened, private, dataset, link, workers_per_rank):
    MAKERS[dataset](opened / "mine")
    lead_out(opened / "mine" / link, private)
    with pytest.raises(DataError, match=rf"mine/{link}.*leads out of the folders .*CBAM_DATA_ROOTS"):
        load(opened, dataset, image_size=28, workers_per_rank=workers_per_rank)


@pytest.mark.parametrize(("dataset", "link"), LINKS)
def test_a_link_that_stays_inside_is_followed(opened, dataset, link):
    MAKERS[dataset](opened / "mine")
    expected = load(opened, dataset, image_size=28)
    (opened / "elsewhere").mkdir()
    lead_out(opened / "mine" / link, opened / "elsewhere")
    assert torch.equal(load(opened, dataset, image_size=28).train.images, expected.train.images)


def test_a_link_that_leads_out_does_not_tell_the_names_behind_it(opened, private):
    make_imagefolder(opened / "mine")
    lead_out(opened / "mine" / "val", private)
    (private / "val" / "a secret name").mkdir()
    with pytest.raises(DataError) as raised:
        load(opened, "imagefolder")
    assert "secret" not in str(raised.value)


def test_a_file_that_becomes_a_link_after_it_was_listed_is_not_opened(opened, private):
    make_imagefolder(opened / "mine")
    images = load(opened, "imagefolder", workers_per_rank=1, val="folder").train
    lead_out(opened / "mine" / "train" / "ants", private)
    with pytest.raises(DataError, match=r"train/ants/2\.png is a link that leads out"):
        images.take(Order(torch.tensor([2])))
    assert images.take(Order(torch.tensor([7]))).shape == (1, 3, 32, 32)


def test_what_is_no_file_is_neither_waited_for_nor_read(opened):
    make_imagefolder(opened / "mine")
    os.mkfifo(opened / "mine" / "train" / "ants" / "pipe.png")
    with pytest.raises(DataError, match=r"ants/pipe\.png is no plain file"):
        load(opened, "imagefolder")


def test_a_folder_whose_name_begins_like_a_root_is_not_below_it(tmp_path):
    roots = DataRoots.of([tmp_path / "data"])
    assert roots.hold(tmp_path / "data")
    assert roots.hold(tmp_path / "data" / "mine")
    assert not roots.hold(tmp_path / "data-private")
    assert not roots.hold(tmp_path / "data" / ".." / "private")
    assert ANYWHERE.hold(tmp_path)


@pytest.mark.parametrize("link", ["cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar-10-batches-py/test_batch"])
def test_nothing_is_downloaded_through_a_link_that_leads_out(opened, private, link):
    make_cifar(opened)
    (opened / "cifar-10-python.tar.gz").write_bytes(b"not the one that was published")
    lead_out(opened / link, private)
    before = {path: path.stat() for path in private.rglob("*")}
    with pytest.raises(DataError, match=rf"{link} is a link that leads out"):
        download("cifar10", opened, DataRoots.of([opened]))
    assert {path: path.stat() for path in private.rglob("*")} == before


def test_the_lock_of_a_download_is_no_way_to_empty_another_file(opened, private):
    (private / "notes").write_text("keep")
    (opened / ".download.lock").symlink_to(private / "notes")
    with pytest.raises(DataError, match="cannot write to"):
        download("cifar10", opened, DataRoots.of([opened]))
    assert (private / "notes").read_text() == "keep"


def test_an_image_is_found_readable_after_it_was_sent_to_another_process(opened):
    images = load_dataset(
        DataSpec(dataset="imagefolder", root=str(make_imagefolder(opened)), workers_per_rank=1, val="folder"),
        (str(opened),),
    ).train
    there = pickle.loads(pickle.dumps(images))
    assert torch.equal(there.take(Order(torch.arange(10))), images.take(Order(torch.arange(10))))


def test_who_trains_by_hand_may_link_to_what_is_anywhere(opened, private, tmp_path):
    make_imagefolder(opened / "mine")
    lead_out(opened / "mine" / "train" / "bees", private)
    lead_out(opened / "mine" / "val", private)
    data = {"dataset": "imagefolder", "root": str(opened / "mine"), "image_size": 16}
    spec = spec_dict(data=data, train={"epochs": 1, "global_batch_size": 4})
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "workers", "spec.json", "--json"]
    options = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, "timeout": 240}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert json.loads(ended.stdout)["outcome"] == "succeeded", ended.stderr


def test_an_image_by_its_path_alone_is_checked(opened, private):
    make_imagefolder(private / "photos")
    (opened / "link.png").symlink_to(private / "photos" / "train" / "ants" / "0.png")
    assert decode(opened / "link.png", 16, roots=ANYWHERE).shape == (3, 16, 16)
    with pytest.raises(DataError, match=r"link\.png is a link that leads out"):
        decode(opened / "link.png", 16, roots=DataRoots.of([opened]))
