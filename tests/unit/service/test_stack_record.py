"""The file that says what was started."""

import os
import threading

import pytest

from service import stack_record
from service.errors import StackError
from service.stack import Stack
from service.stack_parts import environment, ray_temp_dir
from service.stack_record import DEFAULT_URL, ProcessRecord, StackRecord, load, locked, recorded_url, save
from service.stack_settings import StackSettings


def test_what_is_saved_is_loaded(tmp_path):
    record = StackRecord(ports={"api": 8001, "mlflow": 5002, "ray": 6381}, processes={"api": ProcessRecord(7, 1.5)})
    save(tmp_path, record)
    assert load(tmp_path) == record
    assert recorded_url(tmp_path) == "http://127.0.0.1:8001"


def test_without_a_stack_the_default_address_serves(tmp_path):
    assert load(tmp_path) is None
    assert recorded_url(tmp_path) == DEFAULT_URL


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"processes": {"api": {}}}', '{"processes": {}, "colour": 1}'])
def test_a_damaged_file_is_a_clear_error_and_never_an_empty_stack(tmp_path, text):
    (tmp_path / "stack.json").write_text(text)
    with pytest.raises(StackError, match=r"stack\.json is damaged"):
        load(tmp_path)


def test_only_one_at_a_time_holds_the_lock(tmp_path, monkeypatch):
    order, waits = [], threading.Event()

    def second():
        with locked(tmp_path, waits.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(tmp_path):
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    monkeypatch.setattr(stack_record, "LOCK_PATIENCE_SECONDS", 0)
    with locked(tmp_path), pytest.raises(StackError, match="still at work"), locked(tmp_path):
        pass


def test_down_where_nothing_ever_ran_does_nothing_and_leaves_nothing(tmp_path):
    stack = Stack(StackSettings(home=tmp_path / "home"))
    assert stack.down() == []
    assert stack.status() == []
    assert not (tmp_path / "home").exists()


def test_the_token_is_secret_and_stays_the_same(tmp_path):
    settings = StackSettings(home=tmp_path)
    token = settings.ray_token()
    assert len(token) > 30
    assert settings.ray_token() == token
    assert os.stat(tmp_path / "ray_token").st_mode & 0o077 == 0


def test_the_parts_get_nothing_of_another_cluster_or_tracking_server(tmp_path):
    record = StackRecord(ports={"api": 1, "mlflow": 2, "ray": 3})
    users = {"RAY_ADDRESS": "far:1", "RAY_TMPDIR": "/x", "MLFLOW_TRACKING_URI": "http://far", "HOME": "/h"}
    got = environment(StackSettings(home=tmp_path), record, users)
    assert got["HOME"] == "/h"
    assert got["RAY_ADDRESS"] == "127.0.0.1:3"
    assert got["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:2"
    assert "RAY_TMPDIR" not in got


def test_rays_sockets_fit_however_long_the_home_is(tmp_path):
    longest = len("/session_2026-11-22_17-15-53_802600_4194304/sockets/plasma_store.4294967296")
    homes = [tmp_path / ("x" * 200), tmp_path / ("x" * 200 + "y")]
    assert all(len(str(ray_temp_dir(home))) + longest < 107 for home in homes)
    assert ray_temp_dir(homes[0]) != ray_temp_dir(homes[1])
