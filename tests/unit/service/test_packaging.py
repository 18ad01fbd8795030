"""What a wheel must hold beside the code."""

import subprocess
import sys
import zipfile
from pathlib import Path

from service.console.site import read_files
from service.experiments.templates import templates

ROOT = Path(__file__).parents[3]


def test_the_examples_and_the_console_are_in_the_wheel(tmp_path):
    """The folder `examples/` is linked into the package; a wheel holds its files."""
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "service", "examples"):
        (copy / name).symlink_to(ROOT / name)
    for name in ("workers", "cbam_core"):
        (copy / name).mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    subprocess.run(command, cwd=copy, check=True, timeout=200)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    held = {name for name in names if name.startswith("service/examples/")}
    studies = {
        f"service/examples/{kind}/{path.name}"
        for kind in ("comparisons", "sweeps")
        for path in (ROOT / "examples" / kind).iterdir()
    }
    assert studies
    assert held == {f"service/examples/{name}.yaml" for name in templates()} | studies
    console = {f"service/console/static/{path}" for path in read_files()}
    assert "service/console/static/vendor/preact.js" in console
    assert console <= set(names)
