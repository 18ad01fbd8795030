"""Which code trained a run: the same for the same sources, another one wherever one of them differs."""

import shutil
from pathlib import Path

import pytest

from workers.tracking import provenance

ROOT = Path(provenance.__file__).resolve().parents[2]


def copied(tmp_path, monkeypatch):
    """A copy of the sources, which is what is read from now on."""
    for folder in ("cbam_core", "workers"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "workers/tracking/provenance.py"))
    return tmp_path


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    return copied(tmp_path, monkeypatch)


def version() -> str:
    return provenance.code_version.__wrapped__()


def test_a_copy_of_the_sources_elsewhere_is_the_same_code(tmp_path, monkeypatch):
    here = version()
    assert here.startswith(f"{provenance.version_of('cbam-lab')}-")
    copied(tmp_path, monkeypatch)
    assert version() == here


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
def test_any_other_source_is_other_code(elsewhere, change):
    before, source = version(), elsewhere / "cbam_core/attention/cbam.py"
    match change:
        case "edit":
            source.write_text(source.read_text() + "\n")
        case "add":
            (elsewhere / "workers/train/another.py").write_text("")
        case "remove":
            source.unlink()
        case "rename":
            source.rename(source.with_name("cbam2.py"))
    assert version() != before


def test_what_python_writes_beside_them_is_none(elsewhere):
    before = version()
    (elsewhere / "workers/__pycache__").mkdir()
    (elsewhere / "workers/__pycache__/attempt.cpython-313.pyc").write_bytes(b"")
    assert version() == before
