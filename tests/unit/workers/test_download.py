"""Downloads, from a server of the test's own: torchvision's addresses and checksums are those of a tiny archive."""

import hashlib
import io
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torchvision
from pydantic import ValidationError

from cbam_core.errors import DataError
from cbam_core.spec import DataSpec
from tests.unit.workers.test_datasets import make_cifar
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
def published(tmp_path, monkeypatch):
    """A tiny CIFAR-10, published on a local server; gives the paths that were asked for."""
    folder = make_cifar(tmp_path / "made")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder, folder.name)
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "cifar-10-python.tar.gz").write_bytes(buffer.getvalue())
    served = []
    handler = partial(type("Handler", (Quiet,), {"served": served}), directory=str(tmp_path / "www"))
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    theirs = torchvision.datasets.CIFAR10
    monkeypatch.setattr(theirs, "url", f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz")
    monkeypatch.setattr(theirs, "tgz_md5", md5(buffer.getvalue()))
    for name in ("train_list", "test_list"):
        files = [[file, md5((folder / file).read_bytes())] for file, _ in getattr(theirs, name)]
        monkeypatch.setattr(theirs, name, files)
    meta = theirs.meta | {"md5": md5((folder / "batches.meta").read_bytes())}
    monkeypatch.setattr(theirs, "meta", meta)
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def load(root, *, allow_download=True, download=True):
    data = DataSpec(dataset="cifar10", root=str(root), download=download)
    return load_dataset(data, (str(root),), allow_download=allow_download)


def test_what_is_missing_is_downloaded_once(published, root):
    assert len(load(root).train) == 100
    assert len(load(root).test) == 20
    assert published == ASKED_ONCE


def test_what_is_damaged_is_fetched_again(published, root):
    load(root)
    damaged = root / "cifar-10-batches-py" / "data_batch_3"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert len(load(root).train) == 100


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
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError, match=r"cannot download cifar10 .* by hand"):
        load(root)


def test_only_published_datasets_can_be_downloaded():
    with pytest.raises(ValidationError, match="leave `download` out"):
        DataSpec(dataset="digits", download=True)
