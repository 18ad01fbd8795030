"""Where the processes that read images keep their sockets and their pixels."""

import os
import shutil
import subprocess
import sys

import pytest

CODE = """
import tempfile
import torch
from cbam_core.spec import DataSpec
from workers.data import load_dataset
from workers.data.datasets.base import Order
from workers.data.loaders import Loader

if __name__ == "__main__":
    dataset = load_dataset(DataSpec(dataset="synthetic", image_size=32, workers_per_rank=1), ())
    loader = Loader(dataset.train, [Order(torch.arange(64))], processes=1, device=torch.device("cpu"))
    for images, labels in loader:
        print(len(images), len(labels), tempfile.gettempdir())
    loader.close()
"""


def run(tmp_path, *before, **environment):
    script = tmp_path / "read.py"
    script.write_text(CODE)
    return subprocess.run(
        [*before, sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": os.getcwd()} | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_images_are_read_however_long_the_folder_of_temporary_files_is(tmp_path):
    long = tmp_path / ("x" * 118)
    long.mkdir()
    done = run(tmp_path, TMPDIR=str(long))
    assert done.stdout.split() == ["64", "64", str(long)], done.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
def test_too_little_shared_memory_is_told_with_what_to_do(tmp_path):
    mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm || exit 77; exec "$@"'
    done = run(tmp_path, "unshare", "-m", "sh", "-c", mount, "sh")
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    assert done.returncode == 1
    assert "SharedMemoryFull: 3 batches of images take 1 MiB of shared memory (/dev/shm)" in done.stderr
    assert "--shm-size=1g" in done.stderr
