"""TrainWorker without Ray: it is a plain class, and trains in a thread of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from statistics import median

import pytest

from workers.actor import TrainWorker, kept_port
from workers.protocol.outcome import read_outcome


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.005)


@pytest.fixture
def worker():
    worker = TrainWorker()
    yield worker
    worker.stop("cancel")
    wait_until(lambda: worker.poll()["token"] is None or worker.poll()["outcome"])


def step_of(worker):
    return worker.poll()["progress"]["step"]


def test_it_trains_one_assignment_after_another_and_answers_meanwhile(worker, tiny_spec, assign):
    assert worker.poll()["progress"]["phase"] == "idle"
    for token in ("t1", "t2"):
        assignment = assign(tiny_spec(), experiment_id=token, token=token)
        worker.start(assignment.to_dict())
        wait_until(lambda: step_of(worker) > 0 or worker.poll()["outcome"])
        seconds = []
        while not worker.poll()["outcome"]:
            started = time.perf_counter()
            answer = worker.poll()
            seconds.append(time.perf_counter() - started)
            assert answer["token"] == token
            time.sleep(0.01)
        assert median(seconds or [0.0]) < 0.5, "it does not wait for the training"
        assert worker.poll()["outcome"] == read_outcome(assignment.folder.attempt(1)).to_dict()
        assert worker.poll()["progress"]["phase"] == "ended"


def test_who_waits_for_a_first_assignment_has_loaded_all_that_it_needs():
    wait = "from workers.actor import TrainWorker; worker = TrainWorker(ahead=True); worker._importing.join()"
    say = "import sys; print(*(name in sys.modules for name in ('mlflow.pytorch', 'torch._dynamo')))"
    done = subprocess.run([sys.executable, "-c", f"{wait}; {say}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_who_cannot_load_the_training_is_fit_for_nothing(monkeypatch):
    def fails():
        raise ImportError("no torch here")

    monkeypatch.setattr("workers.actor.load_training", fails)
    worker = TrainWorker()
    worker._importing.join()
    assert not worker.poll()["fit"]


def test_who_idles_and_is_asked_by_nobody_gives_its_place_back_and_goes(tiny_spec, assign, monkeypatch):
    done = []
    monkeypatch.setattr("workers.actor.give_back_place", lambda: done.append("place"))
    monkeypatch.setattr("workers.actor.os._exit", done.append)
    worker = TrainWorker(patience_seconds=0.4)
    for _ in range(20):
        time.sleep(0.05)
        worker.poll()
    assert done == []
    wait_until(lambda: len(done) == 2)
    assert done == ["place", 0]
    with pytest.raises(RuntimeError, match="asked by nobody"):
        worker.start(assign(tiny_spec()).to_dict())


def test_who_trains_stays_though_nobody_asks(tiny_spec, assign, monkeypatch):
    exits = []
    monkeypatch.setattr("workers.actor.os._exit", exits.append)
    worker = TrainWorker(patience_seconds=0.2)
    assignment = assign(tiny_spec())
    worker.start(assignment.to_dict())
    record = assignment.folder.attempt(1)
    wait_until(lambda: read_outcome(record) or exits)
    assert read_outcome(record).outcome == "succeeded"
    wait_until(lambda: exits == [0])


def test_news_are_told_when_they_come_and_nothing_is_told_twice(worker, tiny_spec, assign):
    may_train = threading.Event()
    worker._importing = threading.Thread(target=may_train.wait)  # no step before it was heard that there is none
    worker._importing.start()
    worker.news(0.0)
    said = {}
    asking = threading.Thread(target=lambda: said.update(worker.news(60.0)))
    asking.start()
    worker.start(assign(tiny_spec(train={"epochs": 200}), token="t1").to_dict())
    asking.join(10.0)
    may_train.set()
    assert (said["token"], said["progress"]["step"]) == ("t1", 0), "who waits hears of the assignment at once"
    assert worker.news(60.0)["progress"]["step"] > 0, "and of its first step"
    began = time.perf_counter()
    assert worker.news(0.2)["outcome"] is None
    assert time.perf_counter() - began >= 0.2, "further steps are no news"
    worker.stop("pause")
    assert worker.news(60.0)["outcome"]["outcome"] == "paused"


def test_the_same_token_starts_nothing_and_another_one_has_to_wait(worker, tiny_spec, assign):
    long = assign(tiny_spec(train={"epochs": 200}))
    worker.start(long.to_dict())
    worker.start(long.to_dict())
    with pytest.raises(RuntimeError, match="still trains under token t1"):
        worker.start(assign(tiny_spec(), token="t2").to_dict())
    wait_until(lambda: step_of(worker) > 0)
    worker.stop("pause")
    wait_until(lambda: worker.poll()["outcome"])
    assert worker.poll()["outcome"]["outcome"] == "paused"
    worker.start(long.to_dict())
    assert worker.poll()["outcome"]["outcome"] == "paused", "what has ended is not begun again under its token"


def test_a_worker_whose_node_is_about_to_be_stopped_writes_a_checkpoint_and_ends(worker, tiny_spec, assign):
    assignment = assign(tiny_spec(train={"epochs": 200}))
    worker.start(assignment.to_dict())
    wait_until(lambda: step_of(worker) > 0)
    os.kill(os.getpid(), signal.SIGUSR1)
    wait_until(lambda: worker.poll()["outcome"])
    assert worker.poll()["outcome"]["outcome"] == "paused"
    assert list(assignment.folder.checkpoints.glob("step-*/manifest.json"))


def test_a_worker_whose_node_is_about_to_be_stopped_goes_once_its_gang_is_on_record(
    worker, tiny_spec, assign, monkeypatch
):
    exits = []
    monkeypatch.setattr("workers.actor.os._exit", exits.append)
    assignment = assign(tiny_spec())
    worker.start(assignment.to_dict())
    wait_until(lambda: worker.poll()["outcome"])
    result = assignment.folder.attempt(1).result
    record = result.read_bytes()
    result.unlink()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert exits == [], "rank 0 still has to write it"
    result.write_bytes(record)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert exits == [0]


def test_a_worker_that_hangs_shows_where(worker, tiny_spec, assign):
    assignment = assign(tiny_spec(train={"epochs": 200}))
    worker.dump_stacks()
    worker.start(assignment.to_dict())
    log = assignment.folder.attempt(1).log(0)

    def shows_the_step():  # between two steps it shows something else
        worker.dump_stacks()
        return "in train_step" in log.read_text()

    wait_until(lambda: step_of(worker) > 0)
    wait_until(shows_the_step)


def test_the_port_where_a_gang_will_meet_is_given_to_nobody_else():
    """Seconds pass until rank 0 listens there, in which Ray alone asks for dozens of ports."""
    with kept_port() as keeper:
        place = ("127.0.0.1", keeper.getsockname()[1])
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(place)
        with socket.create_server(place), socket.create_connection(place, timeout=10):
            pass


def test_what_breaks_outside_the_training_is_an_outcome_too(worker, tiny_spec, assign, tmp_path):
    (tmp_path / "file").write_text("in the way")
    worker.start(assign(tiny_spec(), storage=str(tmp_path / "file")).to_dict())
    wait_until(lambda: worker.poll()["outcome"])
    assert worker.poll()["outcome"]["outcome"] == "failed"
    assert "Not a directory" in worker.poll()["outcome"]["message"]


def test_a_worker_whose_experiment_was_deleted_waits_for_no_record_of_it(worker, tiny_spec, assign):
    assignment = assign(tiny_spec())
    worker.start(assignment.to_dict())
    wait_until(lambda: worker.poll()["outcome"])
    assert worker._is_recorded()
    shutil.rmtree(assignment.folder.path)
    assert worker._is_recorded()
