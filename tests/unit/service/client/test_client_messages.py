"""Server-Sent Events as the client reads them, against the examples of the HTML standard (section 9.2.6)."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import transport
from service.client.errors import ApiError, ServerUnreachable
from service.client.transport import Transport

END = b"event: end\ndata: {}\n\n"


class Chunks(httpx2.SyncByteStream):
    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks


@pytest.fixture
def follow(monkeypatch) -> Callable[..., list[tuple[str, str, str]]]:
    """The events that a client reads of streams, given in chunks, one stream for each connection; no time passes."""
    monkeypatch.setattr(transport.time, "sleep", lambda _: None)
    return read


def read(*streams: bytes | Sequence[bytes], asked: list[httpx2.Request] | None = None) -> list[tuple[str, str, str]]:
    left = list(streams)

    def answer(request: httpx2.Request) -> httpx2.Response:
        if asked is not None:
            asked.append(request)
        stream = left.pop(0) if len(left) > 1 else left[0]
        chunks = [stream] if isinstance(stream, bytes) else stream
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Chunks(chunks))

    server = Transport("http://cbam.example", None, timeout_seconds=1, tries=2)
    server.http = httpx2.Client(base_url=server.base_url, transport=httpx2.MockTransport(answer))
    return [(event.event, event.data, event.id) for event in server.follow("/stream", params={})]


def test_lines_of_data_are_joined_and_comments_skipped(follow):
    text = b": heartbeat\n\ndata: YHOO\ndata: +2\ndata: 10\n\n"
    assert follow(text + END) == [("message", "YHOO\n+2\n10", "")]


def test_an_id_stays_until_the_next_one_and_only_one_space_is_removed(follow):
    text = b"data: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
    expected = [("message", "first event", "1"), ("message", "second event", ""), ("message", " third event", "")]
    assert follow(text + END) == expected


def test_an_event_that_was_cut_is_not_given_out_and_is_asked_for_again(follow):
    asked: list[httpx2.Request] = []
    cut, rest = b"id: 1\ndata: whole\n\nid: 2\nevent: move\ndata: ha", b"id: 2\nevent: move\ndata: half\n\n"
    assert follow(cut, rest + END, asked=asked) == [("message", "whole", "1"), ("move", "half", "2")]
    assert [request.headers.get("Last-Event-ID") for request in asked] == [None, "1"]
    assert {request.headers["Accept"] for request in asked} == {"text/event-stream"}


def test_an_empty_line_of_a_log_is_an_event_too(follow):
    assert follow(b"data: \nid: 7\n\n" + END) == [("message", "", "7")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_of_the_standard_and_no_other(follow, end):
    text = f"event: move{end}data: a\u2028b\x0bc\x85d{end}{end}".encode()
    assert follow(text + END) == [("move", "a\u2028b\x0bc\x85d", "")]


def test_the_time_to_the_next_connection_is_no_event_and_the_least_that_is_waited(follow, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", waits.append)
    assert follow(b"retry: 7000\n\nid: 1\ndata: one\n\n", END) == [("message", "one", "1")]
    assert 7.0 <= waits[0] <= 7.0 + transport.FIRST_PAUSE_SECONDS / 2


@pytest.mark.parametrize("chunks", [[b": ping\n\n"], [b"", b": ", b"ping\n\n"], [b"da", b"ta\n", b":\n"]])
def test_a_comment_restores_the_tries_wherever_the_network_cuts_it(follow, chunks):
    cuts = 20 * transport.PATIENCE
    assert follow(*[chunks] * cuts, b"id: 1\ndata: one\n\n" + END) == [("message", "one", "1")]


@pytest.mark.parametrize("chunks", [[b"data: a:b"], [b"data", b": a\n"], [b"data: a", b":b\n"], [b"retry: 9\n\n"]])
def test_what_only_looks_like_a_comment_or_an_event_does_not(follow, chunks):
    with pytest.raises(ServerUnreachable, match="ends again and again"):
        follow(chunks)


def test_what_is_no_stream_of_events_is_named(follow, monkeypatch):
    page = httpx2.Response(200, headers={"Content-Type": "text/html"}, text="<p>log in first</p>")
    server = Transport("http://cbam.example", None, timeout_seconds=1, tries=2)
    server.http = httpx2.Client(base_url=server.base_url, transport=httpx2.MockTransport(lambda _: page))
    with pytest.raises(ServerUnreachable, match="text/html"):
        list(server.follow("/stream", params={}))


LINES = st.lists(
    st.sampled_from(["data: a", "data:", "id: 3", ": c", "event: move", "x", "é: \u2028", ""]), max_size=12
)


@given(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 120), max_size=8))
def test_where_the_network_cuts_the_bytes_makes_no_difference(lines, end, cuts):
    whole = end.join(line.encode() for line in lines) + end + end + END
    places = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    assert read([whole[a:b] for a, b in pairwise(places)]) == read(whole)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        ({"detail": "/a: no", "errors": [{"pointer": "/a", "detail": "no"}]}, "/a: no"),
        (
            {
                "detail": "/a: no; /b: no",
                "errors": [{"pointer": "/a", "detail": "no"}, {"pointer": "/b", "detail": "no"}],
            },
            "/a: no\n/b: no",
        ),
        (
            {"detail": "1 field cannot be used", "errors": [{"pointer": "", "detail": "no"}]},
            "1 field cannot be used\n  /: no",
        ),
        ({"title": "Gone"}, "Gone"),
    ],
)
def test_what_is_wrong_is_told_once(problem, text):
    assert str(ApiError(422, problem)) == text
