"""Folders of images as people have them: read whole, or refused by name, in memory and on disk."""

import numpy as np
import pytest
import torch
from PIL import Image

from cbam_core.errors import DataError
from cbam_core.spec import DataSpec
from workers.data import load_dataset
from workers.data.datasets.base import Order

RAMP = np.tile(np.linspace(0, 1, 16), (16, 1))
BLACK = Image.fromarray(np.zeros((16, 16), np.uint8))


@pytest.fixture
def root(tmp_path):
    """Two classes with an image each, to train on and to test on."""
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "mine" / part / name
            folder.mkdir(parents=True)
            BLACK.save(folder / "0.png")
    return tmp_path / "mine"


@pytest.fixture(params=[0, 1])
def load(request, root, tmp_path):
    """Load it, in memory or left on disk."""
    data = DataSpec(dataset="imagefolder", root=str(root), image_size=16, workers_per_rank=request.param, val="folder")
    return lambda: load_dataset(data, (str(tmp_path),))


def pixels_of(part):
    """The first row of the first channel of every image."""
    return part.take(Order(torch.arange(len(part))))[:, 0, 0].tolist()


def test_what_is_there_is_read_and_what_is_not_is_counted_in_the_log(root, load, tmp_path, caplog):
    cat = root / "train" / "cat"
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(cat / "1.png")
    BLACK.save(cat / "2.gif")
    BLACK.save(cat / "3.jfif", "JPEG")
    BLACK.save(cat / "4.pgm")
    (cat / "notes").touch()
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        for folder in (root / "train" / name, cat / name):
            folder.mkdir()
            BLACK.save(folder / "0-checkpoint.png")
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    BLACK.save(tmp_path / "elsewhere" / "deep" / "5.png")
    (cat / "more").symlink_to(tmp_path / "elsewhere")
    dataset = load()
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0] * 5 + [1]
    assert pixels_of(dataset.train)[1] == list(range(0, 256, 17))
    assert f"{root}/train: 6 images are read; left out: 1 .gif, 1 without an extension" in caplog.text
    assert f"{root}/val" not in caplog.text


def test_a_class_of_nothing_but_other_files_says_which(root, load):
    (root / "train" / "dog" / "0.png").rename(root / "train" / "dog" / "0.heic")
    with pytest.raises(DataError, match=r"train has folders without an image: dog; left out: 1 \.heic; copy"):
        load()


@pytest.mark.parametrize("values", [RAMP.astype(np.float32), (RAMP * 65535).astype(np.int32)])
def test_an_image_without_a_range_fails_before_it_is_trained_on(root, load, values):
    Image.fromarray(values).save(root / "train" / "dog" / "1.tif")
    with pytest.raises(DataError, match=r"train/dog/1\.tif: its pixels are .*Pillow's mode [IF]"):
        load()


def test_a_level_too_many_is_refused(root, load):
    for part in ("train", "val"):
        (root / part).rename(root / "dataset")
        (root / part).mkdir()
        (root / "dataset").rename(root / part / "dataset")
    with pytest.raises(DataError, match=r"train has one folder, dataset, which holds cat, dog: a level too many"):
        load()


def test_one_class_is_refused(root, load):
    for part in ("train", "val"):
        (root / part / "dog" / "0.png").unlink()
        (root / part / "dog").rmdir()
    with pytest.raises(DataError, match=r"train has one class, cat; expected two classes or more"):
        load()


def test_a_root_that_holds_something_else_says_what(root, load):
    (root / "dataset").mkdir()
    for part in ("train", "val"):
        (root / part).rename(root / "dataset" / part)
    with pytest.raises(DataError, match=r"mine has no val folder, but the folder dataset"):
        load()


@pytest.mark.parametrize("link", ["train/cat/more", "val/dog/more", "train/cat/1.png"])
def test_a_link_that_leads_out_is_refused_in_any_place(root, load, tmp_path_factory, link):
    private = tmp_path_factory.mktemp("private")
    BLACK.save(private / "secret.png")
    (root / link).symlink_to(private / ("secret.png" if link.endswith("png") else ""))
    with pytest.raises(DataError, match=rf"{link} is a link that leads out of the folders"):
        load()
