import logging
import warnings
from pathlib import Path

import pytest

from workers.runtime.rank_log import log_to


def test_the_log_holds_our_loggers_and_warnings_and_nothing_after_it_closes(tmp_path):
    path = tmp_path / "attempts" / "rank-0.log"
    with log_to(path) as log:
        logging.getLogger("workers.train").info("hello")
        logging.getLogger("cbam_core.networks").warning("careful")
        logging.getLogger("elsewhere").error("not ours")
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("old thing", UserWarning, stacklevel=1)
        assert "hello" in path.read_text(), "every line is there as soon as it is said"
        assert "careful" in log.last_lines(2)
    logging.getLogger("workers").info("too late")
    text = path.read_text()
    assert "old thing" in text
    assert "not ours" not in text
    assert "too late" not in text


def test_a_log_is_bounded_and_keeps_its_head_and_its_tail(tmp_path):
    path = tmp_path / "rank-0.log"
    with log_to(path, quota_bytes=10_000):
        for number in range(5_000):
            logging.getLogger("workers").info("line %d", number)
        size_while_open = path.stat().st_size
    lines = path.read_text().splitlines()
    assert size_while_open < 10_500
    assert path.stat().st_size < 30_000
    assert lines[0].endswith("line 0")
    assert lines[-1].endswith("line 4999")
    assert [line for line in lines if line.startswith("...")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_log_without_room_does_not_hide_how_the_attempt_ended(tmp_path, capfd):
    (tmp_path / "rank-0.log").symlink_to("/dev/full")
    with log_to(tmp_path / "rank-0.log") as log:
        logging.getLogger("workers").info("nobody reads this")
        assert "nobody reads this" in log.last_lines(1), "it is at hand for the message of a failure"


def test_a_second_writer_continues_the_file(tmp_path):
    path = tmp_path / "rank-0.log"
    for word in ("first", "second"):
        with log_to(path):
            logging.getLogger("workers").info(word)
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["first", "second"]
