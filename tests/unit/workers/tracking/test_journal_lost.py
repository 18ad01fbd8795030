"""A journal of which a machine took a part with it: what is whole is read and sent, nothing else is in its way."""

import json

import pytest

from workers.tracking.journal import Journal, has_pending, read_record

ZEROS = b"\0" * 100
DAMAGES = {
    "zeros with a newline": ZEROS + b"\n",
    "zeros before a record": ZEROS,
    "half a line": b'{"metrics": {"train/lo\n',
    "not an object": b"[1, 2]\n17\nnull\n",
    "no text": b"\xff\xfe\n",
    "another object": b'{}\n{"metrics": 5}\n{"metrics": {"a": "b"}, "step": 1, "time": 1}\n{"tags": ["a"]}\n',
    "too large a number": b'{"metrics": {"a": 1' + b"0" * 400 + b'}, "step": 1, "time": 1}\n',
    "nested without end": b"[" * 100_000 + b"\n",
    "no step": b'{"metrics": {"a": 1.0}}\n',
}


def line_of(step: int) -> bytes:
    return (json.dumps({"metrics": {"train/loss": 1 / step}, "step": step, "time": 0}) + "\n").encode()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tracking.jsonl"


@pytest.fixture
def reopened(path):
    journals = []

    def reopen():
        journals.append(Journal(path))
        return journals[-1]

    yield reopen
    for journal in journals:
        journal.close()


def steps(journal):
    return [record["step"] for record, _ in journal.pending()]


def send_all(journal):
    while pending := journal.pending():
        journal.mark_sent(pending[-1][1])


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_record_is_passed_over_and_told_once(path, reopened, caplog, damage, place):
    lines = [line_of(1), line_of(2)]
    path.write_bytes(b"".join([*lines[:place], damage, *lines[place:]]))
    journal = reopened()
    journal.append_metrics(3, {"train/loss": 1 / 3}, 0)
    assert steps(journal) == [1, 2, 3]
    steps(journal)
    told = [message for message in caplog.messages if "no records" in message]
    assert len(told) == (0 if damage == ZEROS else 1), "zeros before a record leave it readable"
    send_all(journal)
    assert not has_pending(path)
    journal.close()
    assert steps(reopened()) == []


def test_a_journal_that_ends_with_what_is_no_record_is_not_pending_for_ever(path, reopened):
    path.write_bytes(line_of(1))
    send_all(reopened())
    with path.open("ab") as file:
        file.write(b'{"metr\n')
    assert has_pending(path)
    assert reopened().pending() == []
    assert not has_pending(path)


@pytest.mark.parametrize("kept", [0, 1, 40, 100, 120, 150])
def test_a_mark_behind_the_end_hides_no_later_value(path, reopened, kept):
    """The journal lost its end with the machine, its mark did not: the next values stand where the lost ones did."""
    path.write_bytes(b"".join(map(line_of, range(1, 4))))
    send_all(reopened())
    path.write_bytes(path.read_bytes()[:kept])
    stood = path.read_bytes().count(b"\n")
    journal = reopened()
    for step in range(stood + 1, 8):
        journal.append_metrics(step, {"train/loss": 1 / step}, 0)
    assert steps(journal) == list(range(stood + 1, 8))
    journal.close()
    assert steps(reopened()) == list(range(stood + 1, 8)), "nor for the next process"


def test_whoever_asks_before_it_is_opened_again_takes_the_mark_for_the_end(path, reopened):
    path.write_bytes(line_of(1) + line_of(2))
    send_all(reopened())
    path.write_bytes(line_of(1))
    assert not has_pending(path)


@pytest.mark.parametrize("mark", [b"", b"\0\0", b"-4", b"1.5", b"9" * 5000, b"17"])
def test_a_mark_that_is_no_place_between_records_loses_none(path, reopened, caplog, mark):
    path.write_bytes(line_of(1) + line_of(2))
    path.with_suffix(".sent").write_bytes(mark)
    assert has_pending(path)
    assert steps(reopened()) == [1, 2]
    assert "no place behind a record" in caplog.text
    assert path.with_suffix(".sent").read_text() == "0"


def test_a_journal_of_which_no_record_is_left_is_new(path, reopened):
    path.write_bytes(ZEROS + b"\n" + ZEROS)
    assert reopened().is_new


def test_all_that_a_journal_is_told_is_a_record(reopened):
    journal = reopened()
    told = [
        {"artifact": "/a", "to": "weights"},
        {"params": {"a": "1"}},
        {"tags": {"a": ""}},
        {"confusion": "/a"},
        {"model": "/a"},
        {"status": "FINISHED"},
    ]
    for record in told:
        journal.append(record)
    journal.append_metrics(1, {"a": float("nan"), "b": 1, "c": float("-inf")}, 5)
    assert [record for record, _ in journal.pending()][:-1] == told
    assert len(journal.pending()) == len(told) + 1
    assert read_record(b'{"metrics": {"a": 1}, "step": 0, "time": 0}\n') is not None
