"""`cbam up` and `cbam down` on the real parts: what is started, where it listens, and what is left of it."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import psutil
import pytest

from service.errors import StackError
from service.stack.doctor import examine
from service.stack.parts import environment, ray_folder
from service.stack.processes import members
from service.stack.record import load
from service.stack.settings import StackSettings
from service.stack.stack import Stack
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.slow]
JOIN = "import ray; ray.init(logging_level='ERROR'); print(ray.cluster_resources()['CPU'])"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return StackSettings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def busy_port():
    """The default port of MLflow, taken by somebody else, as on a machine where another stack runs."""
    with socket.create_server(("127.0.0.1", free_port())) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def running(settings, busy_port):
    """A stack whose ports are the defaults, but free ones, and of MLflow's the default is taken."""
    defaults = {"port": free_port(), "ray_port": free_port(), "mlflow_port": busy_port}
    stack = Stack(with_defaults(settings, defaults))
    try:
        yield stack, stack.up()
    finally:
        stack.down()


def with_defaults(settings, ports):
    """Settings with other defaults: nobody has said that it must be these ports."""
    changed = settings.model_copy(update=ports)
    changed.model_fields_set.difference_update(ports)
    return changed


def sessions(record):
    return {name: members(process, record.stack_id) for name, process in record.processes.items()}


def connections(process):
    """None of one that has ended since it was listed."""
    try:
        return process.net_connections("inet")
    except psutil.NoSuchProcess:
        return []


def test_the_parts_answer_and_a_taken_default_port_gives_way(running, busy_port):
    _, record = running
    assert httpx2.get(f"{record.url}/readyz").json()["degraded"] == []
    assert record.ports["mlflow"] != busy_port
    assert httpx2.get(f"{record.mlflow_url}/health").is_success


def test_two_workers_stand_by_and_go_with_the_stack(running):
    """That nothing of the stack is left after `down` is looked at below."""
    _, record = running

    def standing_by():
        return [one for one in sessions(record)["ray"] if "TrainWorker" in " ".join(one.cmdline())]

    expected = min(2, os.cpu_count() or 1)
    wait_until(lambda: len(standing_by()) == expected, "the workers", seconds=120)


def test_nothing_of_it_is_for_other_users_of_the_machine(running):
    stack, _ = running
    home, ray = stack.settings.home, ray_folder(stack.settings)
    assert {oct(folder.stat().st_mode & 0o777) for folder in (home, ray)} == {"0o700"}
    assert {"cbam.db", "mlflow.db", "api.log"} <= {path.name for path in home.rglob("*")}
    assert [path for path in home.rglob("*") if path.is_file() and path.stat().st_mode & 0o077] == []


def test_a_second_up_starts_nothing_and_is_quick(running):
    stack, record = running
    began = time.monotonic()
    assert stack.up().processes == record.processes
    assert time.monotonic() - began < 10  # under 2 s on a quiet machine


def test_other_settings_are_asked_for_by_name_and_taken_by_a_restart(running, tmp_path):
    stack, record = running
    opened = Stack(stack.settings.model_copy(update={"data_roots": (tmp_path,)}))
    with pytest.raises(StackError, match=r"CBAM_DATA_ROOTS: \(none\), and now .*\n.*--restart"):
        opened.up()
    assert httpx2.get(f"{record.url}/v1/datasets").json()["data_roots"] == []
    renewed = opened.up(restart=True)
    vars(record).update(vars(renewed))  # the tests below look at what runs now
    assert httpx2.get(f"{record.url}/v1/datasets").json()["data_roots"] == [str(tmp_path)]
    assert renewed.ports == record.ports
    assert stack.up().processes == renewed.processes  # who says nothing of data roots keeps them


def test_nothing_listens_beyond_loopback(running):
    _, record = running
    addresses = {
        connection.laddr.ip.removeprefix("::ffff:")
        for group in sessions(record).values()
        for process in group
        for connection in connections(process)
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


@pytest.mark.parametrize("change", [{}, {"RAY_AUTH_TOKEN": "wrong"}, {"RAY_AUTH_MODE": "disabled"}])
def test_only_who_has_the_token_joins_the_ray_cluster(running, change):
    stack, record = running
    env = environment(stack.settings, record, os.environ) | change
    # A driver that is turned away tries for minutes: what it says within seconds is enough.
    command = ["timeout", "60" if not change else "12", sys.executable, "-c", JOIN]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode == 0) == (not change)


def test_mlflow_refuses_other_hosts(running):
    _, record = running
    answer = httpx2.get(f"{record.mlflow_url}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"})
    assert answer.status_code == 403


def test_the_doctor_finds_all_well(running):
    stack, _ = running
    assert [check for check in examine(stack) if not check.ok] == []


@pytest.mark.parametrize("part", ["api", "dispatcher"])
def test_up_brings_back_only_what_was_killed(running, part):
    stack, _ = running
    before = load(stack.settings.home)
    os.kill(before.processes[part].pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(before.processes[part].pid)], timeout=10)
    after = stack.up()
    assert {name for name in after.processes if after.processes[name] != before.processes[name]} == {part}
    assert all(status.ok for status in stack.status())


def test_other_ports_than_the_running_ones_are_refused(running):
    stack, record = running
    insisting = Stack(StackSettings(home=stack.settings.home, port=record.ports["api"] + 1))
    with pytest.raises(StackError, match="`cbam down` first"):
        insisting.up()


def test_a_port_that_is_insisted_on_and_taken_is_a_clear_error(tmp_path, busy_port):
    with pytest.raises(StackError, match=f"port {busy_port} for mlflow is taken"):
        Stack(StackSettings(home=tmp_path, mlflow_port=busy_port)).up()
    assert Stack(StackSettings(home=tmp_path)).down() == []


def test_down_ends_all_of_it_and_nothing_else(running):
    stack, record = running
    ours = [process for group in sessions(record).values() for process in group]
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "ray", "raylet", "gcs_server"]
    ) as other:
        assert set(stack.down()) == {"ray", "mlflow", "api", "dispatcher"}
        assert other.poll() is None
        other.kill()
    assert len(ours) > 8
    assert [process for process in ours if process.is_running()] == []
    assert stack.down() == []
