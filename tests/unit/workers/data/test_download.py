"""Downloads, from a server of the test's own: torchvision's addresses and checksums are those of a tiny archive."""

import hashlib
import io
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import torchvision
from pydantic import ValidationError

from cbam_core.errors import DataError
from cbam_core.spec import DataSpec
from tests.unit.workers.data.test_datasets import make_cifar, make_fashion
from workers.data import load_dataset

ASKED_ONCE = ["/cifar-10-python.tar.gz"] * 2  # torchvision first asks where the address leads


class Server(ThreadingHTTPServer):
    def handle_error(self, *_args):
        """The first of the two does not wait for the answer's end."""


class Quiet(SimpleHTTPRequestHandler):
    served: list[str]

    def log_request(self, *_args):
        self.served.append(self.path)


def md5(data):
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def website(tmp_path):
    """A folder that a local server publishes, its address, and the paths that were asked for."""
    folder, served = tmp_path / "www", []
    folder.mkdir()
    handler = partial(type("Handler", (Quiet,), {"served": served}), directory=str(folder))
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/", served
    server.shutdown()
    server.server_close()


def publish_cifar(website, made, name, theirs, monkeypatch):
    """A tiny archive of CIFAR; torchvision's class `theirs` is told its address and its checksums."""
    www, address, _ = website
    folder = make_cifar(made, name)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder, folder.name)
    (www / theirs.filename).write_bytes(buffer.getvalue())
    monkeypatch.setattr(theirs, "url", address + theirs.filename)
    monkeypatch.setattr(theirs, "tgz_md5", md5(buffer.getvalue()))
    for files in ("train_list", "test_list"):
        sums = [[file, md5((folder / file).read_bytes())] for file, _ in getattr(theirs, files)]
        monkeypatch.setattr(theirs, files, sums)
    meta = theirs.meta | {"md5": md5((folder / theirs.meta["filename"]).read_bytes())}
    monkeypatch.setattr(theirs, "meta", meta)


def publish_fashion(website, made, theirs, monkeypatch):
    """Four tiny idx files, likewise."""
    www, address, _ = website
    folder = make_fashion(made)
    for name, _ in theirs.resources:
        (www / name).write_bytes((folder / name).read_bytes())
    monkeypatch.setattr(theirs, "mirrors", [address])
    sums = [(name, md5((www / name).read_bytes())) for name, _ in theirs.resources]
    monkeypatch.setattr(theirs, "resources", sums)


@pytest.fixture
def published(tmp_path, website, monkeypatch):
    """A tiny CIFAR-10, published on a local server; gives the paths that were asked for."""
    publish_cifar(website, tmp_path / "made", "cifar10", torchvision.datasets.CIFAR10, monkeypatch)
    return website[2]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def load(root, name="cifar10", *, allow_download=True, download=True):
    data = DataSpec(dataset=name, root=str(root), download=download, val="folder")
    return load_dataset(data, (str(root),), allow_download=allow_download)


def test_what_is_missing_is_downloaded_once(published, root):
    assert len(load(root).train) == 100
    assert len(load(root).val) == 20
    assert published == ASKED_ONCE


def test_what_is_damaged_is_fetched_again(published, root):
    load(root)
    damaged = root / "cifar-10-batches-py" / "data_batch_3"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert len(load(root).train) == 100


def test_cifar100_is_downloaded_with_its_fine_classes(tmp_path, website, root, monkeypatch):
    publish_cifar(website, tmp_path / "made", "cifar100", torchvision.datasets.CIFAR100, monkeypatch)
    first, again = load(root, "cifar100"), load(root, "cifar100")
    by_hand = load_dataset(DataSpec(dataset="cifar100", root=str(tmp_path / "made"), val="folder"), (str(tmp_path),))
    for dataset in (first, again):
        assert (len(dataset.train), len(dataset.val), len(dataset.classes)) == (20, 20, 100)
        assert torch.equal(dataset.train.images, by_hand.train.images)
    assert website[2] == ["/cifar-100-python.tar.gz"] * 2


def test_fashion_mnist_is_downloaded_file_by_file(tmp_path, website, root, monkeypatch):
    publish_fashion(website, tmp_path / "made", torchvision.datasets.FashionMNIST, monkeypatch)
    first, again = load(root, "fashion_mnist"), load(root, "fashion_mnist")
    by_hand = load_dataset(
        DataSpec(dataset="fashion_mnist", root=str(tmp_path / "made"), val="folder"), (str(tmp_path),)
    )
    for dataset in (first, again):
        assert (len(dataset.train), len(dataset.val), len(dataset.classes)) == (30, 30, 10)
        assert torch.equal(dataset.train.images, by_hand.train.images)
    assert sorted(set(website[2])) == sorted(f"/{name}" for name, _ in torchvision.datasets.FashionMNIST.resources)
    assert len(website[2]) == 2 * 4


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(path.read_bytes()[:-50]), lambda path: path.unlink()])
def test_a_file_of_fashion_mnist_that_is_damaged_or_gone_is_fetched_again(tmp_path, website, root, monkeypatch, harm):
    publish_fashion(website, tmp_path / "made", torchvision.datasets.FashionMNIST, monkeypatch)
    load(root, "fashion_mnist")
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte"):
        harm(root / "FashionMNIST" / "raw" / name)
    assert len(load(root, "fashion_mnist").val) == 30
    assert website[2][8:] == ["/t10k-images-idx3-ubyte.gz"] * 2, "what is whole is not fetched again"


def test_ranks_that_share_a_folder_download_it_once(published, root):
    with ThreadPoolExecutor(4) as ranks:
        assert [len(dataset.train) for dataset in ranks.map(load, [root] * 4)] == [100] * 4
    assert published == ASKED_ONCE


def test_nothing_is_downloaded_unasked_or_against_the_operators_will(published, root):
    with pytest.raises(DataError, match="unpack cifar-10-python"):
        load(root, download=False)
    with pytest.raises(DataError, match="CBAM_ALLOW_DOWNLOAD"):
        load(root, allow_download=False)
    assert published == []


def test_another_archive_than_the_published_one_is_refused(published, root, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5(b"another"))
    with pytest.raises(DataError, match=r"cannot download cifar10 .* by hand"):
        load(root)


def test_no_network_says_what_to_do(root, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/nothing")
    with pytest.raises(DataError, match=r"cannot download cifar10 .* by hand"):
        load(root)


def test_only_published_datasets_can_be_downloaded():
    with pytest.raises(ValidationError, match="leave `download` out"):
        DataSpec(dataset="digits", download=True)
