"""What a running stack goes by, and a user who wants something else of it."""

import os
import sys

import pytest

from service.errors import StackError
from service.stack.parts import environment
from service.stack.processes import MARK, leader, start, terminate
from service.stack.record import StackRecord, load, save
from service.stack.settings import NOT_TAKEN, StackSettings, variable_of
from service.stack.stack import Stack

PORTS = {"api": 1, "mlflow": 2, "ray": 3}


@pytest.fixture
def running(tmp_path):
    """A record of a stack of which one part runs; it was started with one folder for data."""
    settings = StackSettings(home=tmp_path, data_roots=(tmp_path / "a b", tmp_path / "c"), lease_seconds=7)
    record = StackRecord(ports=PORTS, settings=settings.taken(), chosen=settings.chosen())
    command = [sys.executable, "-c", "import time; time.sleep(300)"]
    record.processes["api"] = start(
        command, environment=os.environ | {MARK: record.stack_id}, cwd=tmp_path, log=tmp_path / "logs" / "api.log"
    )
    save(tmp_path, record)
    yield record
    if (process := leader(record.processes.get("api"))) is not None:
        terminate([[process]], grace_seconds=5)


def test_other_settings_are_refused_by_name_and_nothing_is_touched(running, tmp_path):
    stack = Stack(StackSettings(home=tmp_path, data_roots=(tmp_path / "d",), lease_seconds=7))
    with pytest.raises(StackError) as refused:
        stack.up()
    lines = str(refused.value).splitlines()
    assert lines[1:-1] == [f"  CBAM_DATA_ROOTS: {tmp_path / 'a b'}:{tmp_path / 'c'}, and now {tmp_path / 'd'}"]
    assert "--restart" in lines[-1]
    assert load(tmp_path) == running
    assert leader(running.processes["api"]) is not None


def test_what_is_left_out_stays_as_it_runs(running, tmp_path):
    stack = Stack(StackSettings(home=tmp_path, data_roots=(tmp_path / "a b", tmp_path / "c")))
    record = load(tmp_path)
    stack._agree_on_settings(record, restart=False)
    assert stack.settings.lease_seconds == 7
    assert record == running
    given = environment(stack.settings, record, {"CBAM_LEASE_SECONDS": "9"})
    assert float(given["CBAM_LEASE_SECONDS"]) == 7  # a part that is started again goes by what the others do


def test_a_restart_ends_what_runs_and_takes_the_new_settings(running, tmp_path):
    stack = Stack(StackSettings(home=tmp_path, data_roots=()))
    record = load(tmp_path)
    stack._agree_on_settings(record, restart=True)
    assert leader(running.processes["api"]) is None
    assert record.processes == {}
    assert record.settings["CBAM_DATA_ROOTS"] == ""
    assert record.settings == stack.settings.taken(), "also of what is left out, and was set before"
    assert record.settings["CBAM_LEASE_SECONDS"] != "7.0"


def test_a_setting_that_was_none_is_another_one(running, tmp_path):
    stack = Stack(StackSettings(home=tmp_path, quota_cpus=2.5))
    with pytest.raises(StackError, match=r"CBAM_QUOTA_CPUS: \(none\), and now 2\.5"):
        stack.up()


def test_a_password_is_not_shown(running, tmp_path):
    stack = Stack(StackSettings(home=tmp_path, database_url="postgresql://cbam:secret@db/cbam"))
    with pytest.raises(StackError, match=r"CBAM_DATABASE_URL: sqlite:///.*, and now postgresql://db/cbam") as refused:
        stack.up()
    assert "secret" not in str(refused.value)


def test_a_stack_of_an_older_version_goes_on(running, tmp_path):
    running.settings, running.chosen = {}, []
    Stack(StackSettings(home=tmp_path, data_roots=(tmp_path,)))._agree_on_settings(running, restart=False)
    assert running.settings == {}, "nobody knows what it goes by"


def test_every_setting_survives_as_a_variable(tmp_path, monkeypatch):
    odd = {"allowed_hosts": ("a", "b"), "ship_code": True, "quota_cpus": 2.5, "ray_cpus": 3, "storage": tmp_path / "s"}
    settings = StackSettings(home=tmp_path, data_roots=(tmp_path, tmp_path / "x"), **odd)
    for name in os.environ:
        if name.startswith("CBAM_"):
            monkeypatch.delenv(name)
    for name, value in settings.taken().items():
        monkeypatch.setenv(name, value)
    read = StackSettings(home=tmp_path)
    assert read.taken() == settings.taken()
    assert {variable_of(name) for name in NOT_TAKEN}.isdisjoint(read.taken())
