"""Files that are whole, and yet not what their authors published."""

import hashlib
import logging
import os

import pytest
import torchvision

from tests.unit.workers.data.test_datasets import load, make_cifar, make_fashion


def checksums(folder, names):
    return [(name, hashlib.md5((folder / name).read_bytes()).hexdigest()) for name in names]


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A tiny CIFAR-10, and torchvision takes it for the published one."""
    folder, theirs = make_cifar(tmp_path), torchvision.datasets.CIFAR10
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(theirs, attribute, checksums(folder, [name for name, _ in getattr(theirs, attribute)]))
    ((_, md5),) = checksums(folder, ["batches.meta"])
    monkeypatch.setattr(theirs, "meta", theirs.meta | {"md5": md5})
    return folder


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """A tiny Fashion-MNIST, likewise."""
    folder, theirs = make_fashion(tmp_path), torchvision.datasets.FashionMNIST
    monkeypatch.setattr(theirs, "resources", checksums(folder, [name for name, _ in theirs.resources]))
    return folder


def change_a_pixel(path):
    """The pickle stays whole, and as long as it was."""
    changed = bytearray(path.read_bytes())
    pixel = next(place for place in range(len(changed) // 2, len(changed)) if 32 < changed[place] < 127)
    changed[pixel] ^= 1
    path.write_bytes(changed)


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_was_published_is_read_without_a_word(cifar, fashion, caplog):
    load(cifar.parent, "cifar10")
    load(fashion.parents[1], "fashion_mnist", image_size=28)
    assert not warnings_of(caplog)


def test_a_pixel_that_changed_is_told_with_the_file_and_what_to_do(cifar, caplog):
    path = cifar / "data_batch_2"
    change_a_pixel(path)
    dataset = load(cifar.parent, "cifar10")
    assert len(dataset.train) == 100
    (warning,) = warnings_of(caplog)
    assert warning.startswith(f"data_batch_2 of {cifar}: not as published")
    assert "put them there again" in warning


def test_a_file_is_hashed_once_and_again_when_it_has_changed(cifar, caplog):
    path = cifar / "test_batch"
    load(cifar.parent, "cifar10")
    before = path.stat()
    change_a_pixel(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    load(cifar.parent, "cifar10")
    assert not warnings_of(caplog), "by its size and time it is the file that was hashed"
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    load(cifar.parent, "cifar10")
    load(cifar.parent, "cifar10")
    assert len(warnings_of(caplog)) == 2, "every trial is told"


def test_another_dataset_by_the_same_names_is_told(fashion, caplog):
    """MNIST's files are called as Fashion-MNIST's are."""
    make_fashion(fashion.parents[1] / "other", count=31)
    other = fashion.parents[1] / "other" / "FashionMNIST" / "raw"
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (fashion / name).write_bytes((other / name).read_bytes())
    assert len(load(fashion.parents[1], "fashion_mnist", image_size=28).train) == 31
    (warning,) = warnings_of(caplog)
    assert warning.startswith(f"train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz of {fashion}")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_images_of_ones_own_are_used_all_the_same(tmp_path, name, caplog):
    make_cifar(tmp_path, name)
    assert load(tmp_path, name).num_classes == {"cifar10": 10, "cifar100": 100}[name]
    assert len(warnings_of(caplog)) == 1
