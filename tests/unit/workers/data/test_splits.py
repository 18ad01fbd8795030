"""Which images become val: how many, whose, and always the same."""

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cbam_core.datasets import DATASETS, cut_count
from cbam_core.errors import DataError
from cbam_core.spec import DataSpec, ValSpec
from workers.data import Dataset, load_dataset
from workers.data.datasets.base import Split
from workers.data.datasets.folder_parts import groups_of
from workers.data.datasets.registry import MADE
from workers.data.datasets.source import Source
from workers.data.splits import cut, joined, same_pixels, val_mask


def kept(data: DataSpec) -> dict[str, int]:
    dataset = load_dataset(data)
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return {name: len(images) for name, images in parts.items() if images is not None}


def pixels(split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


@given(
    labels=st.lists(st.integers(0, 4), min_size=20, max_size=200),
    fraction=st.floats(0.01, 0.5),
    seed=st.integers(0, 9),
    stratified=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_so_many_are_cut_as_the_preview_says_and_of_every_class_its_share(labels, fraction, seed, stratified):
    """The number follows from the size of the set; a class gives what it has to, give or take one image."""
    of = torch.tensor(labels)
    mask = cut(of, fraction, "val", seed, stratified=stratified)
    alone = int((of.bincount() == 1).sum())
    assert (
        cut_count(len(of), fraction) - (alone if stratified else 0) <= int(mask.sum()) <= cut_count(len(of), fraction)
    )
    assert torch.equal(mask, cut(of, fraction, "val", seed, stratified=stratified)), "the same every time"
    if stratified:
        exact = of.bincount() * fraction
        taken = of[mask].bincount(minlength=len(exact))
        assert (taken <= exact.ceil() + alone).all()
        assert ((taken < of.bincount()) | (of.bincount() == 0)).all(), "something of every class stays"


def test_other_seeds_cut_other_images_of_the_same_number():
    labels = torch.arange(300) % 3
    masks = [val_mask(labels, ValSpec(seed=seed)) for seed in range(5)]
    assert len({tuple(mask.tolist()) for mask in masks}) == 5
    assert {int(mask.sum()) for mask in masks} == {30}


def test_groups_stay_together():
    labels, groups = torch.arange(400) % 4, torch.arange(400) // 8
    mask = val_mask(labels, ValSpec(fraction=0.2), groups)
    assert not set(groups[mask].tolist()) & set(groups[~mask].tolist())
    assert int(mask.sum()) == 80


@pytest.mark.parametrize(("labels", "groups"), [([], None), ([0], None), ([0] * 9, [1] * 9)])
def test_what_cannot_be_cut_is_said(labels, groups):
    with pytest.raises(DataError, match="no image can be cut off"):
        val_mask(torch.tensor(labels, dtype=torch.int64), ValSpec(), None if groups is None else torch.tensor(groups))


@pytest.mark.parametrize("side", [1, 3, 8])
def test_the_same_pixels_have_the_same_number_and_others_another(side):
    images = torch.randint(0, 3, (600, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[100:200] = images[:100]
    numbers = same_pixels(images).tolist()
    seen: dict[bytes, int] = {}
    for image, number in zip(images, numbers, strict=True):
        assert seen.setdefault(image.numpy().tobytes(), number) == number
    assert len(set(numbers)) == len(seen)


def test_copies_of_an_image_never_stand_in_train_and_val():
    images = torch.arange(200, dtype=torch.uint8).repeat_interleave(2).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    source = Source(
        Split(images.contiguous(), torch.zeros(400, dtype=torch.int64)), Split(images[:4], torch.zeros(4)), ("a",)
    )
    dataset = source.divide(DataSpec(dataset="digits", image_size=8, val=ValSpec(fraction=0.25)))
    assert not pixels(dataset.train) & pixels(dataset.val)
    assert len(dataset.val) == 100


def test_test_images_that_are_training_images_too_are_warned_of(caplog):
    images = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    labels = torch.zeros(100, dtype=torch.int64)
    Source(Split(images, labels), Split(images[90:], labels[90:]), ("a",)).divide(
        DataSpec(dataset="digits", image_size=8)
    )
    assert "10 of the 10 test images are, pixel for pixel, training images too" in caplog.text


@pytest.mark.parametrize("name", sorted(MADE))
@pytest.mark.parametrize("val", [ValSpec(), ValSpec(fraction=0.25, seed=3, stratified=False), "folder"])
def test_the_sizes_are_those_that_the_server_knows_without_reading(name, val):
    data = DataSpec(dataset=name, image_size=16, val=val)
    known = {part: size for part, size in vars(DATASETS[name].divided(data.val_fraction)).items() if size is not None}
    assert kept(data) == known


def test_the_parts_of_the_digits_are_disjoint_and_test_does_not_depend_on_val():
    whole = [load_dataset(DataSpec(dataset="digits", image_size=8, val=ValSpec(seed=seed))) for seed in (0, 1)]
    for seed, dataset in enumerate(whole):
        cut_off = f"10% cut from train, of every class, seed {seed}"
        assert dataset.split == f"1298 train, 144 val ({cut_off}), 355 test (the part held out)"
        assert not pixels(dataset.val) & (pixels(dataset.train) | pixels(dataset.test))
        origin = torch.cat([dataset.train.origin, dataset.val.origin])
        assert sorted(origin.tolist()) == list(range(1442))
    assert torch.equal(whole[0].test.images, whole[1].test.images)
    assert not torch.equal(whole[0].val.images, whole[1].val.images)


def test_canvases_of_one_digit_stay_in_one_part():
    from workers.data.datasets.cluttered_digits import load_cluttered_digits

    source = load_cluttered_digits(16)
    dataset = load_dataset(DataSpec(dataset="cluttered_digits", image_size=16))
    assert not set(source.groups[dataset.val.origin].tolist()) & set(source.groups[dataset.train.origin].tolist())


# Folders


def make(root: Path, *parts: str, count: int = 10) -> DataSpec:
    """So many images in each of two classes of every part; `` is the root itself."""
    number = 0
    for part in parts:
        for name in ("cat", "dog"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(folder / f"p{index // 2}-{index}.png")
                number += 1
    return DataSpec(dataset="imagefolder", root=str(root), image_size=8)


def became(data: DataSpec, **fields: object) -> Dataset:
    data = DataSpec.model_validate(data.model_dump() | fields)
    streamed = load_dataset(data.model_copy(update={"workers_per_rank": 1}), (data.root,))
    dataset = load_dataset(data, (data.root,))
    assert dataset.split == streamed.split
    for part in ("train", "val", "test"):
        mine, theirs = getattr(dataset, part), getattr(streamed, part)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.paths() == theirs.paths()
            assert torch.equal(mine.origin, theirs.origin)
            assert torch.equal(mine.labels, theirs.labels)
    return dataset


CUT = "10% cut from train, of every class, seed 0"
OWN_TEST = "20% cut from train, of every class, the same in every experiment"


@pytest.mark.parametrize(
    ("parts", "val", "said"),
    [
        (
            ("train", "val", "test"),
            {},
            "20 train (the folder train), 20 val (the folder val), 20 test (the folder test)",
        ),
        (
            ("train", "val", "test"),
            "folder",
            "20 train (the folder train), 20 val (the folder val), 20 test (the folder test)",
        ),
        (("train", "val"), {}, f"18 train (the folder train), 2 val ({CUT}), 20 test (the folder val)"),
        (("train", "test"), {}, f"18 train (the folder train), 2 val ({CUT}), 20 test (the folder test)"),
        (("train", "val"), "folder", "20 train (the folder train), 20 val (the folder val), no test"),
        (("train", "test"), "folder", "20 train (the folder train), 20 val (the folder test), no test"),
        (("train",), {}, f"14 train (the folder train), 2 val ({CUT}), 4 test ({OWN_TEST})"),
        (("",), {}, f"14 train (the whole folder), 2 val ({CUT}), 4 test ({OWN_TEST})"),
    ],
)
def test_what_the_folders_become(tmp_path, parts, val, said):
    dataset = became(make(tmp_path, *parts), val=val)
    assert dataset.split == said
    files = [name for images in (dataset.train, dataset.val, dataset.test) if images for name in images.paths()]
    assert len(set(files)) == len(files) == 20 * len(parts)
    assert all((tmp_path / name).is_file() for name in files)


def test_a_folder_without_val_cannot_be_asked_for_it(tmp_path):
    with pytest.raises(DataError, match=r"data\.val is folder, and .* has no val folder"):
        became(make(tmp_path, "train"), val="folder")


def test_folders_beside_the_parts_are_named(tmp_path, caplog):
    make(tmp_path / "elsewhere", "validation", count=1)
    data = make(tmp_path, "train", "val")
    (tmp_path / "elsewhere" / "validation").rename(tmp_path / "validation")
    became(data)
    assert "not read, as neither train, val nor test: elsewhere, validation" in caplog.text


def test_images_of_one_group_stay_in_one_part(tmp_path):
    dataset = became(make(tmp_path, "train", "val", count=20), val={"fraction": 0.2, "group": r"/(p\d+)-"})

    def groups(images) -> set[str]:
        return {re.search(r"train/(\w+/p\d+)-", name)[1] for name in images.paths()}

    assert len(dataset.val) == 8
    together = {group.partition("/")[2] for group in groups(dataset.train)}
    assert not together & {group.partition("/")[2] for group in groups(dataset.val)}


def test_copies_of_a_file_stay_in_one_part(tmp_path):
    data = make(tmp_path, "", count=20)
    for path in list(tmp_path.rglob("*.png")):
        for number in range(3):
            path.with_name(f"{path.stem} copy {number}.png").write_bytes(path.read_bytes())
    dataset = became(data, val={"fraction": 0.25})
    originals = [
        {name.partition(" copy")[0].removesuffix(".png") for name in part.paths()}
        for part in (dataset.train, dataset.val, dataset.test)
    ]
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [96, 32, 32]
    assert sum(map(len, originals)) == len(set().union(*originals)) == 40


def test_groups_and_copies_stay_in_one_part_of_a_test_that_is_cut_too(tmp_path):
    data = make(tmp_path, "train", count=40)
    twin = tmp_path / "train" / "cat"
    (twin / "p90-0.png").write_bytes((twin / "p0-0.png").read_bytes())  # of another group, and a copy
    dataset = became(data, val={"fraction": 0.2, "group": r"^(\w+/p\d+)-"})
    groups = [
        {re.search(r"train/(\w+/p\d+)-", name)[1] for name in part.paths()}
        for part in (dataset.train, dataset.val, dataset.test)
    ]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 41
    (of_twins,) = [part for part in groups if "cat/p90" in part]
    assert "cat/p0" in of_twins
    assert len(dataset.test) == 16


SEVEN = st.lists(st.integers(0, 6), min_size=12, max_size=12)


@given(one=SEVEN, other=SEVEN)
@settings(max_examples=100, deadline=None)
def test_joined_groups_are_the_finest_that_hold_both(one, other):
    """Against the components of a graph, by hand."""
    component = list(range(12))
    pairs = [(i, j) for i in range(12) for j in range(12)]
    for _ in range(12):
        for i, j in pairs:
            if one[i] == one[j] or other[i] == other[j]:
                component[i] = component[j] = min(component[i], component[j])
    ours = joined(torch.tensor(one), torch.tensor(other)).tolist()
    assert all((ours[i] == ours[j]) == (component[i] == component[j]) for i, j in pairs)


def test_a_class_that_groups_leave_without_val_is_told(tmp_path, caplog):
    data = make(tmp_path, "train", "test", count=10)
    dataset = became(data, val={"fraction": 0.1, "group": r"^(cat|dog/p\d+)"})  # all cats are one patient
    assert set(dataset.val.labels.tolist()) == {1}
    assert "val has no images of 1 classes: cat" in caplog.text


def test_a_test_folder_that_nobody_reads_may_hold_anything(tmp_path):
    """An experiment from before there was a test: unlabelled images lie there, as competitions give them."""
    data = make(tmp_path, "train", "val")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").touch()
    old = data.model_copy(update={"val": "folder"})
    dataset = load_dataset(old, (str(tmp_path),), with_test=False)
    assert dataset.split == "20 train (the folder train), 20 val (the folder val), no test"
    with pytest.raises(DataError, match="test has no images"):
        load_dataset(data, (str(tmp_path),))


def test_a_group_that_is_not_found_names_the_file(tmp_path):
    with pytest.raises(DataError, match=r"data\.val\.group \(patient\) finds nothing in cat/p0-\d\.png"):
        became(make(tmp_path, "train"), val={"group": "patient"})


@pytest.mark.parametrize(
    ("val", "why"),
    [
        ({"fraction": 0}, "greater than 0"),
        ({"fraction": 0.6}, "less than or equal to 0.5"),
        ({"group": "("}, "not a regular expression"),
        ("folders", "folder"),
        ({"share": 0.1}, "share"),
        (None, "valid"),
    ],
)
def test_what_val_refuses(val, why):
    with pytest.raises(ValueError, match=why):
        DataSpec.model_validate({"dataset": "digits", "val": val})


def test_only_files_can_be_grouped_by_their_paths():
    with pytest.raises(ValueError, match="digits has no paths to group by"):
        DataSpec.model_validate({"dataset": "digits", "val": {"group": "x"}})


def test_images_are_grouped_by_their_path_below_the_folder_of_their_part():
    paths = ["test/cat/p1_a.png", "test/dog/p1_b.png", "train/cat/p2_a.png", "cat/p2_b.png", "cat/other.png"]
    assert groups_of(paths, r"^[^/]+/(p\d+)_") == ["p1", "p1", "p2", "p2", None]
    assert groups_of(paths, r"p\d") == ["p1", "p1", "p2", "p2", None]
