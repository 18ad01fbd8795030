import errno
import json
import resource
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.tracking.journal import Journal, has_pending


@pytest.fixture(scope="module")
def opened():
    """Journals that are closed in the end."""
    journals = []

    def open_one(path):
        journals.append(Journal(path))
        return journals[-1]

    yield open_one
    for journal in journals:
        journal.close()


def records(journal):
    return [record for record, _ in journal.pending()]


def test_what_was_sent_is_not_pending_again_even_for_the_next_process(tmp_path, opened):
    journal = opened(tmp_path / "tracking.jsonl")
    for number in range(5):
        journal.append({"tags": {"number": number}})
    journal.mark_sent(journal.pending()[2][1])
    assert [record["tags"]["number"] for record in records(journal)] == [3, 4]
    journal.close()
    assert [record["tags"]["number"] for record in records(opened(tmp_path / "tracking.jsonl"))] == [3, 4]


def test_a_repeated_step_is_not_written_again(tmp_path, opened):
    path = tmp_path / "tracking.jsonl"
    first = opened(path)
    for step in (1, 2, 3):
        first.append_metrics(step, {"train/loss": 1 / step}, 0)
    first.append_metrics(3, {"val/top1": 0.5}, 0)
    first.close()
    second = opened(path)  # it resumed from a checkpoint of step 1
    for step in (2, 3, 4):
        second.append_metrics(step, {"train/loss": 1 / step}, 0)
    second.append_metrics(3, {"val/top1": 0.5}, 0)
    written = [(name, record["step"]) for record in records(second) for name in record["metrics"]]
    assert written == [("train/loss", 1), ("train/loss", 2), ("train/loss", 3), ("val/top1", 3), ("train/loss", 4)]


@contextmanager
def room_for(path, size):
    """No file of this process may grow beyond so many bytes more than this one has: a write stops in its middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_record_that_the_disk_has_no_room_for_leaves_nothing_and_is_written_once_there_is_room(tmp_path, opened):
    path = tmp_path / "tracking.jsonl"
    journal = opened(path)
    journal.append_metrics(1, {"train/loss": 0.5}, 0)
    before = path.read_bytes()
    with room_for(path, 10), pytest.raises(OSError, match="too large"):
        journal.append_metrics(2, {"train/loss": 0.25}, 0)
    assert path.read_bytes() == before
    journal.append_metrics(2, {"train/loss": 0.25}, 0)
    journal.append_metrics(3, {"train/loss": 0.125}, 0)
    assert [(record["step"], record["metrics"]["train/loss"]) for record in records(journal)] == [
        (1, 0.5),
        (2, 0.25),
        (3, 0.125),
    ]


def test_what_was_sent_is_not_sent_again_by_this_process_where_the_mark_has_no_room(tmp_path, opened, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = opened(tmp_path / "tracking.jsonl")
    journal.append({"tags": {"number": 1}})
    monkeypatch.setattr("workers.tracking.journal.write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        journal.mark_sent(journal.pending()[0][1])
    assert not journal.pending()


@given(lost=st.integers(1, 60))
def test_a_line_that_death_left_half_written_is_cut_off(tmp_path_factory, opened, lost):
    path = tmp_path_factory.mktemp("journal") / "tracking.jsonl"
    journal = opened(path)
    journal.append_metrics(1, {"train/loss": 0.5}, 0)
    journal.append_metrics(2, {"train/loss": 0.25}, 0)
    journal.close()
    data = path.read_bytes()
    path.write_bytes(data[: -min(lost, len(data) // 2)])
    again = opened(path)
    again.append_metrics(2, {"train/loss": 0.25}, 0)
    assert [record["step"] for record in records(again)] == [1, 2]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_whether_anything_is_pending_is_known_without_reading_what_was_sent(tmp_path, opened):
    path = tmp_path / "tracking.jsonl"
    assert not has_pending(path)
    journal = opened(path)
    for number in range(2):
        journal.append({"tags": {"number": number}})
    for _, offset in journal.pending():
        assert has_pending(path)
        journal.mark_sent(offset)
    assert not has_pending(path)
    path.write_bytes(path.read_bytes().replace(b"tags", b"ta\0s"))
    assert not has_pending(path), "what is wrong with a record that has arrived is no matter"


def test_a_line_that_somebody_is_writing_is_not_pending_and_stays_as_it_is(tmp_path, opened):
    path = tmp_path / "tracking.jsonl"
    journal = opened(path)
    journal.append({"tags": {"number": 0}})
    journal.mark_sent(journal.pending()[0][1])
    with path.open("ab") as file:
        file.write(b'{"tags"')
    before = path.read_bytes()
    assert not has_pending(path)
    assert path.read_bytes() == before


def test_values_that_json_does_not_know_survive(tmp_path, opened):
    journal = opened(tmp_path / "tracking.jsonl")
    journal.append_metrics(1, {"train/loss": float("inf")}, 0)
    assert records(journal)[0]["metrics"]["train/loss"] == float("inf")
