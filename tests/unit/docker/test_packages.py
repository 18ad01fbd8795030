"""How requirements.lock is divided among the layers of the image: docker/packages.py."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES: dict[str, Any] = runpy.run_path(str(ROOT / "docker/packages.py"))
LOCK = ROOT / "requirements.lock"


@pytest.fixture
def lists(tmp_path):
    """The lists of an image that holds everything that is locked for Linux, as its installer would read them."""
    pins = PACKAGES["read_pins"](LOCK.read_text())
    names = (re.match(r"(\S+)==(\S+)", pin) for pin in pins.values())
    (tmp_path / "image.txt").write_text("".join(f"{match[0]}\n" for match in names))
    (tmp_path / "tools.txt").write_text(f"{re.match(r'[^ ]+', pins['cyclonedx-bom'])[0]}\n")
    PACKAGES["main"](str(LOCK), str(tmp_path / "image.txt"), str(tmp_path / "tools.txt"), str(tmp_path))
    return {
        name: PACKAGES["read_pins"]((tmp_path / name).read_text())
        for name in ("torch.txt", "packages.txt", "sbom.txt", "requirements.lock")
    }


def test_torch_and_cuda_are_a_layer_of_their_own(lists):
    torch, packages = lists["torch.txt"], lists["packages.txt"]
    assert {"torch", "torchvision", "triton", "nvidia-cudnn-cu13", "cuda-toolkit"} <= torch.keys()
    assert all(re.match(r"torch|triton|nvidia-|cuda-", name) for name in torch)
    assert {"ray", "timm", "mlflow", "numpy"} <= packages.keys()
    assert not torch.keys() & packages.keys()
    assert torch | packages == PACKAGES["read_pins"](LOCK.read_text())


def test_every_line_keeps_its_hashes(lists):
    for pins in lists.values():
        assert pins
        assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\n$", pin) for pin in pins.values())


def test_the_tools_of_the_build_have_lists_of_their_own(lists):
    assert lists["sbom.txt"].keys() == {"cyclonedx-bom"}
    assert lists["requirements.lock"].keys() == {"uv"}


@pytest.mark.parametrize("line", ["cowsay==6.1", "torch==1.0.0"])
def test_what_is_not_locked_stops_the_build(line: str):
    pins = PACKAGES["read_pins"](LOCK.read_text())
    with pytest.raises(SystemExit, match=re.escape(line)):
        PACKAGES["chosen"](pins, f"{line}\n")


def test_names_are_compared_as_indexes_do_and_markers_of_the_resolution_are_left_out():
    pins = PACKAGES["read_pins"](
        "# a comment\nPy_YAML==6.0.3 ; python_version < '4' \\\n    --hash=sha256:aa\nx==1 \\\n"
    )
    chosen = PACKAGES["chosen"](pins, "py.yaml==6.0.3 ; sys_platform == 'linux'\n")
    assert chosen == {"py-yaml": "Py_YAML==6.0.3 ; python_version < '4' \\\n    --hash=sha256:aa\n"}
