"""Server-Sent Events as the client reads them, against the examples of the HTML standard."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sse import Message, lines_of, messages


def read(text: str) -> list[Message]:
    return list(messages(lines_of([text])))


def test_lines_of_data_are_joined_and_comments_skipped():
    text = ": heartbeat\n\ndata: YHOO\ndata: +2\ndata: 10\n\n"
    assert read(text) == [Message("message", "YHOO\n+2\n10", "")]


def test_an_id_stays_until_the_next_one_and_only_one_space_is_removed():
    text = "data: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
    assert [(m.data, m.id) for m in read(text)] == [("first event", "1"), ("second event", ""), (" third event", "")]


def test_a_message_that_was_cut_is_not_given_out():
    assert read("data: whole\n\nevent: move\ndata: ha") == [Message("message", "whole", "")]


def test_an_empty_line_of_a_log_is_a_message_too():
    assert read("data: \nid: 7\n\n") == [Message("message", "", "7")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_of_the_standard(end):
    assert read(f"event: end{end}data: a\u2028b{end}{end}data: x{end}{end}x")[0] == Message("end", "a\u2028b", "")


@given(st.text("ab:\r\n \u2028", max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_where_the_network_cuts_the_text_makes_no_difference(text, cuts):
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert list(lines_of(pieces)) == list(lines_of([text]))
