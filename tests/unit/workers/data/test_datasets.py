"""Datasets from small folders that the tests make themselves, and what is said about broken ones."""

import gzip
import pickle
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import v2

from cbam_core.data_roots import ANYWHERE
from cbam_core.datasets import DATASETS
from cbam_core.errors import DataError
from cbam_core.spec import DataSpec
from workers.data import load_dataset
from workers.data.datasets import imagefolder
from workers.data.datasets.base import Order
from workers.data.datasets.cluttered_digits import load_cluttered_digits
from workers.data.datasets.decoding import decode
from workers.data.datasets.digits import read_digits
from workers.data.datasets.fashion_mnist import read_idx
from workers.data.datasets.registry import MADE


def make_cifar(root, name="cifar10", count=20):
    random = np.random.default_rng(0)
    folder = root / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    folder.mkdir(parents=True)
    files = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"] if name == "cifar10" else ["train", "test"]
    key, classes = ("labels", 10) if name == "cifar10" else ("fine_labels", 100)
    for file in files:
        batch = {
            "data": random.integers(256, size=(count, 3072), dtype=np.uint8),
            key: random.integers(classes, size=count).tolist(),
        }
        (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
    meta, names = ("batches.meta", "label_names") if name == "cifar10" else ("meta", "fine_label_names")
    (folder / meta).write_bytes(pickle.dumps({names: [f"class {n}" for n in range(classes)]}, protocol=2))
    return folder


def make_fashion(root, count=30):
    random = np.random.default_rng(0)
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name in ("train", "t10k"):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            pixels = random.integers(10, size=shape, dtype=np.uint8).tobytes()
            (folder / f"{name}-{kind}-ubyte").write_bytes(header + pixels)  # where torchvision looks
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + pixels))
    return folder


def make_imagefolder(root):
    """Two classes, images of many shapes: every image is a vertical stripe of its class's colour in the middle."""
    for part, count in (("train", 5), ("val", 2)):
        for label, name in enumerate(("ants", "bees")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.zeros((40 + 10 * number, 60, 3), dtype=np.uint8)
                pixels[:, 20:40] = (255, 0, 0) if label else (0, 0, 255)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def load(root, name, **fields):
    """All that is held out as val, so that nothing is cut from what is read."""
    data = DataSpec(dataset=name, root=str(root), **{"val": "folder"} | fields)
    return load_dataset(data, (str(root),))


@pytest.mark.parametrize(("name", "count"), [("cifar10", 100), ("cifar100", 20)])
def test_cifar_is_read_as_torchvision_reads_it(tmp_path, name, count, monkeypatch):
    make_cifar(tmp_path, name)
    theirs_class = torchvision.datasets.CIFAR10 if name == "cifar10" else torchvision.datasets.CIFAR100
    monkeypatch.setattr(theirs_class, "_check_integrity", lambda _self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_path: True)
    theirs = theirs_class(str(tmp_path))
    ours = load(tmp_path, name)
    assert len(ours.train) == count
    assert ours.train.labels.tolist() == theirs.targets
    assert np.array_equal(ours.train.images.permute(0, 2, 3, 1).numpy(), theirs.data)
    assert list(ours.classes) == theirs.classes


def test_fashion_mnist_is_read_as_torchvision_reads_it(tmp_path):
    make_fashion(tmp_path)
    theirs = torchvision.datasets.FashionMNIST(str(tmp_path))
    ours = load(tmp_path, "fashion_mnist", image_size=28)
    assert torch.equal(ours.train.images[:, 0], theirs.data)
    assert torch.equal(ours.train.labels, theirs.targets)


def test_images_come_at_the_size_the_spec_says(tmp_path):
    make_cifar(tmp_path)
    assert load(tmp_path, "cifar10", image_size=24).val.images.shape == (20, 3, 24, 24)


class Trap:
    def __reduce__(self):
        return (print, ("this must never run",))


def batch(images, labels):
    return pickle.dumps({"data": np.zeros((images, 3072), np.uint8), "labels": labels})


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"latin1", b"|atin1")),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\xc3", b"\xff")),
        lambda path: path.write_bytes(pickle.dumps([1, 2])),
        lambda path: path.write_bytes(pickle.dumps({"data": np.zeros(7, np.uint8), "labels": [0]})),
        lambda path: path.write_bytes(pickle.dumps({"data": [[300] * 3072], "labels": [0]})),
        lambda path: path.write_bytes(batch(0, [])),
        lambda path: path.write_bytes(batch(3, [0, 1])),
        lambda path: path.write_bytes(batch(2, [0, 10])),
        lambda path: path.write_bytes(batch(2, [0, -1])),
        lambda path: path.write_bytes(pickle.dumps(Trap())),
    ],
)
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_a_damaged_file_of_cifar_is_named_with_what_to_do(tmp_path, harm, name, capsys):
    harm(make_cifar(tmp_path) / name)
    with pytest.raises(DataError, match=f"cannot read .*/{name} .*unpack cifar-10-python") as raised:
        load(tmp_path, "cifar10")
    assert len(str(raised.value)) < 600
    assert capsys.readouterr().out == ""


def test_cifar_without_its_classes_says_what_to_do(tmp_path):
    (make_cifar(tmp_path) / "batches.meta").write_bytes(pickle.dumps({"fine_label_names": []}))
    with pytest.raises(DataError, match=r"cannot read .*/batches\.meta .*unpack cifar-10-python"):
        load(tmp_path, "cifar10")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00\x08\x01",
        b"\x00\x00\x08\x00x",
        b"\x00\x00\x08\x01\x00\x00\x00\x00",
        b"\x00\x00\x08\x01\x00\x00\x00\x05abc",
        b"\x00\x00\x08\x01\x00\x00\x00\x02abc",
        b"no idx at all",
    ],
)
def test_a_damaged_idx_file_is_named_with_what_to_do(tmp_path, data):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(data)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte .* is damaged .*fashion-mnist"):
        read_idx(tmp_path / "train-labels-idx1-ubyte", ANYWHERE)


def test_a_packed_idx_file_with_a_changed_byte_is_named(tmp_path):
    folder, outcomes = make_fashion(tmp_path), set()
    packed = (folder / "t10k-images-idx3-ubyte.gz").read_bytes()
    for place in range(20, len(packed), len(packed) // 50):
        changed = bytearray(packed)
        changed[place] ^= 255
        (folder / "t10k-images-idx3-ubyte.gz").write_bytes(changed)
        with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte in .*fashion-mnist") as raised:
            load(tmp_path, "fashion_mnist", image_size=28)
        outcomes.add(type(raised.value.__cause__).__name__)
    assert {"error", "BadGzipFile"} <= outcomes, "zlib's own error, and a wrong checksum"


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("t10k-labels-idx1", np.zeros(29, np.uint8), "no images with a label each"),
        ("t10k-images-idx3", np.zeros((30, 784), np.uint8), "no images with a label each"),
        ("t10k-labels-idx1", np.full(30, 10, np.uint8), r"t10k-labels-idx1-ubyte .* labels outside 0\.\.9"),
    ],
)
def test_idx_files_that_do_not_belong_together_are_named(tmp_path, name, array, words):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    (make_fashion(tmp_path) / f"{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    with pytest.raises(DataError, match=f"{words}.*fashion-mnist"):
        load(tmp_path, "fashion_mnist", image_size=28)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_an_empty_folder_says_what_to_do(tmp_path, name):
    with pytest.raises(DataError, match="there"):
        load(tmp_path, name)


def test_a_root_outside_the_data_roots_is_refused_even_behind_a_link(tmp_path):
    allowed, elsewhere = tmp_path / "allowed", tmp_path / "elsewhere"
    allowed.mkdir()
    make_cifar(elsewhere)
    (allowed / "link").symlink_to(elsewhere)
    for root in (elsewhere, allowed / "link", allowed / ".." / "elsewhere"):
        with pytest.raises(DataError, match="CBAM_DATA_ROOTS"):
            load_dataset(DataSpec(dataset="cifar10", root=str(root)), (str(allowed),))
    with pytest.raises(DataError, match="CBAM_DATA_ROOTS"):
        load_dataset(DataSpec(dataset="cifar10", root=str(elsewhere)), ())
    with pytest.raises(DataError, match="not a folder"):
        load_dataset(DataSpec(dataset="cifar10", root=str(allowed / "missing")), (str(allowed),))


def test_a_folder_of_images_becomes_squares_of_their_middles(tmp_path):
    make_imagefolder(tmp_path)
    dataset = load(tmp_path, "imagefolder", image_size=20)
    assert dataset.classes == ("ants", "bees")
    assert dataset.train.images.shape == (10, 3, 20, 20)
    assert dataset.train.labels.tolist() == [0] * 5 + [1] * 5
    assert dataset.val.labels.tolist() == [0, 0, 1, 1]
    middle = dataset.train.images[:, :, 10, 10]
    assert middle[:5].tolist() == [[0, 0, 255]] * 5
    assert middle[5:].tolist() == [[255, 0, 0]] * 5


@pytest.mark.parametrize("workers_per_rank", [0, 1])
@pytest.mark.parametrize(("image_size", "crop_pct"), [(28, 0.875), (38, 0.95), (32, 1.0)])
def test_a_test_image_is_cropped_as_torchvision_does_and_a_training_image_is_not(
    tmp_path, image_size, crop_pct, workers_per_rank
):
    """The scaled lengths are whole and the borders even: others we round, where torchvision cuts the fraction off."""
    random, scaled = np.random.default_rng(0), int(image_size / crop_pct)
    photographs = [
        Image.fromarray(random.integers(256, size=(*sides, 3), dtype=np.uint8))
        for sides in [(64, 80), (96, 64), (160, 160), (16, 24)]
    ]
    for number, photograph in enumerate(photographs):
        for part in ("train", "val"):
            folder = tmp_path / part / ("noise" if number < 2 else "static")
            folder.mkdir(parents=True, exist_ok=True)
            photograph.save(folder / f"{number}.png")
    fields = {"image_size": image_size, "workers_per_rank": workers_per_rank}
    ours, whole = (load(tmp_path, "imagefolder", **fields, crop_pct=share) for share in (crop_pct, 1.0))
    change = v2.Compose([v2.Resize(scaled), v2.CenterCrop(image_size), v2.PILToTensor()])
    everything = Order(torch.arange(len(photographs)))
    assert torch.equal(ours.val.take(everything), torch.stack([change(photograph) for photograph in photographs]))
    assert torch.equal(ours.train.take(everything), whole.train.take(everything))
    assert (ours.mean, ours.std) == (whole.mean, whole.std)


def test_a_photograph_to_crop_is_decoded_large_enough(tmp_path):
    """A quarter of 256 pixels is 64: enough for an image_size of 64 that is the whole, and not for half of it."""
    stripes = (np.arange(256) % 4 < 2)[None, :, None].repeat(256, 0).repeat(3, 2).astype(np.uint8) * 255
    Image.fromarray(stripes).save(tmp_path / "stripes.jpg", quality=95)
    assert decode(tmp_path / "stripes.jpg", 64, roots=ANYWHERE)[0].std() < 30
    assert decode(tmp_path / "stripes.jpg", 128, crop_pct=0.5, roots=ANYWHERE)[0].std() > 90


def test_only_a_folder_of_images_is_cropped():
    with pytest.raises(ValidationError, match="leave `crop_pct` out"):
        DataSpec(dataset="digits", crop_pct=0.875)


def truncate(path, whole=0.7):
    path.write_bytes(path.read_bytes()[: int(whole * path.stat().st_size)])


def photograph(path, *, whole):
    Image.fromarray(np.random.default_rng(0).integers(256, size=(60, 60, 3), dtype=np.uint8)).save(path)
    truncate(path, whole)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda root: (root / "val").rename(root / "else"), "has no val folder"),
        (lambda root: (root / "train" / "bees").rename(root / "train" / "wasps"), "do not have: bees"),
        (lambda root: (root / "train" / "ants" / "3.png").write_bytes(b"no image"), "cannot read .*3.png"),
        (lambda root: truncate(root / "val" / "ants" / "1.png"), "cannot read .*val/ants/1.png.*copy it again"),
        (lambda root: photograph(root / "train" / "bees" / "9.jpg", whole=0.7), "cannot read .*9.jpg.*copy it again"),
        (lambda root: (root / "train" / "checkpoints").mkdir(), "train has folders without an image: checkpoints"),
        (
            lambda root: [path.unlink() for path in (root / "val" / "ants").iterdir()],
            "val has folders without an image: ants; copy",
        ),
        (lambda root: [path.unlink() for path in (root / "val").rglob("*.png")], "has no images"),
    ],
)
def test_a_wrong_folder_of_images_says_what_is_wrong(tmp_path, harm, words):
    harm(make_imagefolder(tmp_path))
    with pytest.raises(DataError, match=words):
        load(tmp_path, "imagefolder")


def test_a_class_without_a_folder_to_test_on_is_told_in_the_log(tmp_path, caplog):
    shutil.rmtree(make_imagefolder(tmp_path) / "val" / "bees")
    assert len(load(tmp_path, "imagefolder").val) == 2
    assert "val has no images of 1 classes: bees" in caplog.text


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_damaged_folder_that_stays_on_disk_fails_before_it_is_trained_on(tmp_path, part):
    for path in (make_imagefolder(tmp_path) / part).rglob("*.png"):
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match=f"cannot read .*/{part}/.*png"):
        load(tmp_path, "imagefolder", workers_per_rank=1)


def test_so_many_images_of_a_folder_are_tried_at_most_and_of_every_class(tmp_path, monkeypatch):
    monkeypatch.setattr(imagefolder, "STATISTICS_IMAGES", 6)
    monkeypatch.setattr(imagefolder, "TRIED_IMAGES", 3)
    make_imagefolder(tmp_path)
    tried = []
    monkeypatch.setattr(imagefolder, "decode", lambda *image, **crop: tried.append(image[0]) or decode(*image, **crop))
    load(tmp_path, "imagefolder", workers_per_rank=1)
    counts = Counter(f"{path.parts[-3]}/{path.parts[-2]}" for path in tried)
    assert counts == {"train/ants": 3, "train/bees": 3, "val/ants": 2, "val/bees": 1}
    assert len(set(tried)) == 9


def test_more_images_than_memory_holds_are_refused_or_left_on_disk(tmp_path, monkeypatch):
    make_imagefolder(tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10_000}))
    with pytest.raises(DataError, match=r"set data\.workers_per_rank to leave them on disk"):
        load(tmp_path, "imagefolder")
    assert len(load(tmp_path, "imagefolder", workers_per_rank=1).train) == 10


@pytest.mark.parametrize("name", sorted(MADE))
def test_the_catalogue_tells_the_truth(name):
    dataset, facts = load_dataset(DataSpec(dataset=name, image_size=16)), DATASETS[name]
    assert (len(dataset.train) + len(dataset.val), len(dataset.test)) == (facts.train_images, facts.test_images)
    assert (dataset.num_classes, dataset.input_shape[0]) == (facts.classes, facts.channels)
    again = load_dataset(DataSpec(dataset=name, image_size=16))
    assert torch.equal(dataset.train.images, again.train.images)
    assert torch.equal(dataset.test.labels, again.test.labels)


def test_the_digit_stands_somewhere_on_its_canvas():
    """At a scale of 8 pixels the pasted digit is an original; the canvas holds it or something lighter."""
    dataset = load_cluttered_digits(20)
    images, labels = read_digits()
    found = 0
    for canvas, label in zip(dataset.train.images[:20], dataset.train.labels[:20], strict=True):
        originals = images[labels == label].float()
        windows = canvas.float().unfold(1, 8, 1).unfold(2, 8, 1)[0].reshape(-1, 64)
        holds = (windows[:, None] >= originals.flatten(1)[None] - 0.5).all(2)
        found += bool(holds.any())
    assert found >= 3, "of 6 … 10 pixels a side, a fifth are 8"
