"""scripts/gpu: every part at tiny sizes on the CPU, and what it does with parts that fail, hang or do not fit."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu_parts import JSON, PARTS, Part
from tests.support.waiting import has_ended, wait_until

ROOT = Path(__file__).parents[2]
ABSENT = (
    "ray",
    "mlflow",
    "fastapi",
    "sqlalchemy",
    "alembic",
    "pydantic_settings",
    "psycopg",
    "uvicorn",
    "schemathesis",
)
"""What a machine with a GPU has not got."""


@pytest.fixture
def runner(tmp_path):
    return gpu.Runner(tmp_path / "results.jsonl", dict(os.environ), deadline=time.monotonic() + 60, tiny=False)


def part(name, code, *, seconds=1, limit=30, **fields):
    command = ("-c", code, JSON)
    return Part(name=name, command=command, tiny=command, seconds=seconds, limit=limit, shows="", **fields)


def records_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_part_runs_at_tiny_sizes_without_the_packages_of_the_service(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n")
    environment = {name: value for name, value in os.environ.items() if name != "OUT"}
    environment |= {"PYTHONPATH": str(tmp_path), "PYTHON": sys.executable}
    output = tmp_path / "results.jsonl"
    command = [str(ROOT / "scripts" / "gpu"), "--tiny", "--output", str(output)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    machine, *records = records_of(output)
    assert machine["machine"]["torch"]
    assert [record["part"] for record in records] == [part.name for part in PARTS]
    for record in records:
        skipped_tests = record["result"] == "skipped" and "test" in record["detail"]
        assert record["result"] == "passed" or skipped_tests, record
        assert record["part"] in ran.stdout.rpartition("detail")[2]
    by_name = {record["part"]: record for record in records}
    assert [row["name"] for row in by_name["loop"]["ratios"]] == ["ours / bare loop"]
    assert "MLflow" in by_name["loop"]["notes"][0]
    assert by_name["tail"]["results"]
    assert by_name["step"]["ratios"]
    assert {row.get("buckets") for row in by_name["gpus"]["results"]} >= {"5 MB buckets", "100 MB buckets"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_loop_is_timed_beside_mlflow_where_it_is_installed(tmp_path):
    command = [str(ROOT / "scripts" / "gpu"), "--tiny", "--only", "loop", "--output", str(tmp_path / "results.jsonl")]
    environment = {name: value for name, value in os.environ.items() if name != "OUT"} | {"PYTHON": sys.executable}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (loop,) = records_of(tmp_path / "results.jsonl")[1:]
    assert len(loop["ratios"]) == 2
    assert loop["notes"] == []


def test_the_limits_of_parts_are_those_of_a_gpu(tmp_path):
    short = part("short", "import time; time.sleep(2)", limit=1)
    for tiny, result in ((False, "killed"), (True, "passed")):
        output = tmp_path / f"{result}.jsonl"
        gpu.Runner(output, dict(os.environ), deadline=time.monotonic() + 60, tiny=tiny).run(short, gpus=1)
        assert records_of(output)[0]["result"] == result


def test_a_part_that_crashes_is_reported_and_the_next_one_runs(runner):
    runner.run(part("crashes", "raise SystemExit('no kernel')"), gpus=1)
    runner.run(part("works", "print('all well')"), gpus=1)
    crashed, worked = records_of(runner.output)
    assert (crashed["result"], worked["result"]) == ("failed", "passed")
    assert "no kernel" in crashed["detail"]
    assert worked["output"] == ["all well"]


def test_a_part_that_hangs_is_killed_with_its_children_and_what_it_had_found_is_kept(runner):
    code = """
import json, subprocess, sys, time
open(sys.argv[1], "w").write(json.dumps({"ratios": [{"name": "half", "value": 0.5}]}))
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"])
print(child.pid, flush=True)
time.sleep(600)
"""
    runner.run(part("hangs", code, limit=5), gpus=1)
    (record,) = records_of(runner.output)
    assert record["result"] == "killed"
    assert record["ratios"] == [{"name": "half", "value": 0.5}]
    assert record["seconds"] < 30
    child = int(record["output"][0])
    wait_until(lambda: has_ended(child), "the end of the child that ignores SIGTERM")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"seconds": 100}, "takes 100 s, and "),
        ({"gpus": 2}, "needs 2 GPUs; there is 1"),
        ({"file": "tests/no_such_file.py"}, "there is no tests/no_such_file.py"),
    ],
)
def test_a_part_that_cannot_run_is_skipped_by_name_and_reason(runner, fields, reason):
    runner.run(part("unfit", "raise SystemExit(1)", **fields), gpus=1)
    (record,) = records_of(runner.output)
    assert (record["part"], record["result"]) == ("unfit", "skipped")
    assert record["detail"].startswith(reason)


def test_missing_packages_are_installed_from_wheels_for_the_run_alone(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "gpu_probe-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("gpu_probe.py", "VALUE = 3\n")
        wheel.writestr("gpu_probe-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: gpu-probe\nVersion: 1.0\n")
        wheel.writestr(
            "gpu_probe-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("gpu_probe-1.0.dist-info/RECORD", "")
    (tmp_path / "wheels.txt").write_text("gpu-probe==1.0\n")
    monkeypatch.setitem(sys.modules, "pydantic", None)
    environment = dict(os.environ) | {"CBAM_WHEELS": str(tmp_path)}
    with gpu.installed(environment, tmp_path / "wheels.txt") as found:
        code = "import gpu_probe; print(gpu_probe.VALUE)"
        assert subprocess.run([sys.executable, "-c", code], env=found, capture_output=True, check=True).stdout == b"3\n"
        folder = Path(found["PYTHONPATH"].split(os.pathsep)[0])
    assert not folder.exists()


def test_the_wheels_are_those_that_everything_is_tested_with():
    def pins(file):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        return {line.split()[0] for line in lines if "==" in line}

    assert pins("scripts/gpu-wheels.txt") < pins("requirements.lock")
