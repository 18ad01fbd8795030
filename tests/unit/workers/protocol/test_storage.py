import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from cbam_core.spec import Name
from workers.protocol.storage import ExperimentFolder, folder_name, write_atomically, write_once


def test_the_layout_is_the_documented_one(tmp_path):
    folder = ExperimentFolder(tmp_path, "e1")
    paths = [folder.spec, folder.attempt(2).log(3), folder.attempt(2).result, folder.checkpoints, folder.export]
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "experiments/e1/spec.yaml",
        "experiments/e1/attempts/2/rank-3.log",
        "experiments/e1/attempts/2/result.json",
        "experiments/e1/checkpoints",
        "experiments/e1/export",
    ]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a\0b", "x" * 129, "a\n"])
def test_an_id_cannot_leave_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match="experiment id"):
        ExperimentFolder(tmp_path, name)


@given(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._ +-]{0,127}\Z"))
def test_what_a_spec_may_be_named_names_a_folder(name):
    assert TypeAdapter(Name).validate_python(name) == name
    assert ExperimentFolder(Path("/storage"), folder_name(name)).path.parent == Path("/storage/experiments")


def test_the_last_attempt_is_the_highest_number(tmp_path):
    folder = ExperimentFolder(tmp_path, "e1")
    assert folder.last_attempt() == 0
    for number in (2, 10, 1):
        folder.attempt(number).path.mkdir(parents=True)
    assert folder.last_attempt() == 10


def test_of_many_writers_at_once_exactly_one_wins_and_its_content_stands(tmp_path):
    path, start, won = tmp_path / "result.json", threading.Barrier(8), []

    def write(name: str) -> None:
        start.wait()
        if write_once(path, name * 10_000):
            won.append(name)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert path.read_text() == won[0] * 10_000
    assert list(tmp_path.iterdir()) == [path]


def test_an_atomic_write_replaces_all_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "state"
    write_atomically(path, b"long " * 1000)
    write_atomically(path, "short")
    assert path.read_text() == "short"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "module",
    ["protocol.storage", "protocol.assignment", "protocol.progress", "protocol.outcome", "protocol.stop", "actor"],
)
def test_what_the_dispatcher_imports_loads_no_torch_ray_or_mlflow(module):
    code = f"import sys, workers.{module}; print(sorted({{'torch', 'ray', 'mlflow'}} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert answer.stdout.strip() == "[]"
