"""The file that says what was started."""

import os
import stat
import threading

import pytest

from service.client.local_url import DEFAULT_URL, recorded_url
from service.errors import StackError
from service.home import private_folder
from service.stack import record as stack_record
from service.stack.parts import environment, ray_folder
from service.stack.record import ProcessRecord, StackRecord, load, locked, save
from service.stack.settings import StackSettings
from service.stack.stack import Stack


def test_what_is_saved_is_loaded(tmp_path):
    record = StackRecord(ports={"api": 8001, "mlflow": 5002, "ray": 6381}, processes={"api": ProcessRecord(7, 1.5)})
    save(tmp_path, record)
    assert load(tmp_path) == record
    assert recorded_url(tmp_path) == "http://127.0.0.1:8001"


def test_without_a_stack_the_default_address_serves(tmp_path):
    assert load(tmp_path) is None
    assert recorded_url(tmp_path) == DEFAULT_URL


def test_an_ipv6_address_stands_in_brackets(tmp_path):
    record = StackRecord(host="::1", ports={"api": 8123})
    save(tmp_path, record)
    assert record.url == recorded_url(tmp_path) == StackSettings(home=tmp_path, host="::1", port=8123).url
    assert record.url == "http://[::1]:8123"


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


def test_the_parts_ask_each_other_without_the_users_proxy(tmp_path):
    record = StackRecord(ports={"api": 1, "mlflow": 2, "ray": 3})
    got = environment(StackSettings(home=tmp_path), record, {"http_proxy": "http://proxy:1", "no_proxy": "a.org"})
    assert got["http_proxy"] == "http://proxy:1"  # for published weights
    assert {"a.org", "127.0.0.1", "localhost"} <= set(got["no_proxy"].split(","))
    assert got["NO_PROXY"] == got["no_proxy"]


def test_rays_sockets_fit_however_long_the_home_is(tmp_path):
    longest = len("/session_2026-11-22_17-15-53_802600_4194304/sockets/plasma_store.4294967296")
    homes = [tmp_path / ("x" * 200), tmp_path / ("x" * 200 + "y")]
    for home in homes:
        home.mkdir()
    folders = [ray_folder(StackSettings(home=home)) for home in homes]
    assert all(len(str(folder / "ray")) + longest < 107 for folder in folders)
    assert folders[0] != folders[1]


def test_a_folder_that_somebody_else_has_made_first_is_refused(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StackError, match="belongs to another user"):
        private_folder(tmp_path / "link")
    private_folder(tmp_path / "real")
    assert mode(tmp_path / "real") == 0o700
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    for refused in (lambda: private_folder(tmp_path / "real"), lambda: locked(tmp_path).__enter__()):
        with pytest.raises(StackError, match="belongs to another user"):
            refused()


def test_a_home_is_closed_to_others_unless_it_holds_other_things(tmp_path):
    cases = {"new": None, "empty": [], "ours": ["stack.json", "x"], "mixed": ["x"]}
    for name, files in cases.items():
        home = tmp_path / name
        if files is not None:
            home.mkdir()
            home.chmod(0o755)
        for file in files or ():
            (home / file).touch()
        with locked(home):
            pass
    assert {name: mode(tmp_path / name) for name in cases} == {
        "new": 0o700,
        "empty": 0o700,
        "ours": 0o700,
        "mixed": 0o755,
    }
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "x").touch()
    with pytest.raises(StackError, match="other users may write"), locked(shared):
        pass


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)
