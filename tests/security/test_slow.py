"""Clients that take their time: they are hung up on, and nobody waits for them."""

import socket
import time
from contextlib import ExitStack

import httpx2
import psutil

from tests.support.specs import spec_dict
from tests.support.waiting import wait_until

MANY = 200
HEAD = b"POST /v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def connections(target, stack: ExitStack, count: int) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection(("127.0.0.1", target.port), 10)) for _ in range(count)]


def hung_up(connection: socket.socket) -> bool:
    """Whether the server has closed the connection, whatever it said before."""
    connection.settimeout(20)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def assert_served(target) -> None:
    """Somebody else is answered meanwhile."""
    headers = {"Authorization": f"Bearer {target.admin}"}
    with httpx2.Client(base_url=target.url, headers=headers, timeout=30) as client:
        for _ in range(5):
            assert client.get("/v1/experiments").status_code == 200
        assert client.post("/v1/experiments", json=spec_dict()).status_code == 201


def test_heads_that_drip_in_are_not_waited_for(target):
    with ExitStack() as stack:
        slow = connections(target, stack, MANY)
        for connection in slow:
            connection.sendall(HEAD)
        assert_served(target)
        for connection in slow:
            assert hung_up(connection)


def test_a_drop_now_and_then_does_not_win_time(target):
    with socket.create_connection(("127.0.0.1", target.port), 10) as connection:
        begin = time.monotonic()

        def dropped() -> bool:
            time.sleep(0.1)
            try:
                connection.sendall(b"X")
            except OSError:
                return True
            return False

        connection.sendall(HEAD)
        wait_until(dropped, "the server to hang up", seconds=20)
        assert time.monotonic() - begin < 15.0


def test_the_second_request_of_a_connection_is_not_waited_for_either(target):
    with socket.create_connection(("127.0.0.1", target.port), 10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert hung_up(connection)


def test_bodies_that_never_end_are_cut_with_a_word(target):
    with ExitStack() as stack:
        slow = connections(target, stack, MANY // 4)
        for connection in slow:
            connection.sendall(HEAD + f"Authorization: Bearer {target.admin}\r\nContent-Length: 500\r\n\r\n{{".encode())
        assert_served(target)
        for connection in slow:
            connection.settimeout(20)
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")


def test_who_asks_and_does_not_read_holds_up_nobody(target):
    line = f"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {target.admin}\r\n\r\n".encode()
    with ExitStack() as stack:
        for connection in connections(target, stack, 20):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.sendall(line * 20)
        assert_served(target)


def test_who_leaves_in_the_middle_leaves_nothing_behind(target):
    for end in (10, len(HEAD), len(HEAD) + 30):
        whole = HEAD + f"Authorization: Bearer {target.admin}\r\nContent-Length: 500\r\n\r\n{{".encode()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", target.port), 10) as connection:
                connection.sendall(whole[:end])
    assert_served(target)


def script_of(target) -> str:
    """The largest file that is open to strangers."""
    page = httpx2.get(f"{target.url}/docs").text
    return next(word for word in page.split('"') if word.endswith("swagger-ui-bundle.js"))


def test_who_never_reads_is_hung_up_on(target):
    """Answers that wait in the server's memory for somebody who asked for many, and reads none."""
    request = f"GET {script_of(target)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with ExitStack() as stack:
        slow = connections(target, stack, 20)
        for connection in slow:
            connection.sendall(request * 50)
        ours = {connection.getsockname()[1] for connection in slow}
        assert_served(target)

        def left():
            held = psutil.Process(target.process.pid).net_connections("tcp")
            return ours & {one.raddr.port for one in held if one.raddr}

        wait_until(lambda: not left(), "the server to hang up")


def test_who_reads_slowly_gets_all_of_it(target):
    path = script_of(target)
    whole = len(httpx2.get(f"{target.url}{path}", headers={"Accept-Encoding": "identity"}).content)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        connection.connect(("127.0.0.1", target.port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
            time.sleep(0.15)  # twice as long as a client may read nothing
    assert len(answer.partition(b"\r\n\r\n")[2]) == whole
