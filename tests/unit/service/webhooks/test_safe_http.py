"""A POST to an address that a stranger chose: where it goes, and where it never goes."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from ipaddress import ip_address

import pytest

from service.errors import AddressRefused, DeliveryFailed
from service.webhooks import safe_http
from service.webhooks.safe_http import is_public, post
from tests.support.receiver import receiving


@pytest.fixture
def database_url(tmp_path):
    return f"sqlite:///{tmp_path / 'unused.db'}"


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::8.8.8.8"])
def test_what_anybody_can_reach_is_public(address):
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
        *("192.0.0.192", "168.63.129.16", "64:ff9b:1::7f00:1", "::127.0.0.1", "::ffff:0:127.0.0.1", "fec0::1"),
        *("::ffff:168.63.129.16", "64:ff9b::168.63.129.16", "192.88.99.1", "2001:0:1::1", "2002:808:808::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::10.0.0.1", "2002:7f00:1::", "2001:0:1::1"),
    ],
)
def test_what_only_this_network_can_reach_is_not(address):
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f000001", "127.1", "0177.0.0.1", "[::ffff:7f00:1]"]
)
def test_no_way_to_write_loopback_reaches_it(host):
    with receiving() as receiver:
        port = receiver.url.rpartition(":")[2]
        with pytest.raises((AddressRefused, DeliveryFailed)):
            post(f"http://{host}:{port}/", b"{}", {}, allow_private=False)
        assert receiver.requests == []


def test_a_name_with_one_address_inside_is_refused_whatever_its_others_are(monkeypatch):
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(AddressRefused, match="two-faced"):
        post("http://two-faced.example/", b"{}", {}, allow_private=False)


def test_a_name_is_asked_for_once_and_the_checked_address_is_connected_to(monkeypatch):
    """DNS rebinding: the name server says a public address first, and loopback from then on."""
    with receiving() as receiver:
        port = int(receiver.url.rpartition(":")[2])
        asked, connected = [], []

        def rebinding(host, port, *_, **__):
            asked.append(host)
            ip = "192.0.2.77" if len(asked) == 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]

        class Sockets:
            def connect_tcp(self, host, *_):
                connected.append(host)
                raise safe_http.httpcore2.ConnectError("nobody there")

        monkeypatch.setattr(socket, "getaddrinfo", rebinding)
        monkeypatch.setattr(safe_http, "is_public", lambda address: str(address) == "192.0.2.77")
        monkeypatch.setattr(safe_http.httpcore2, "SyncBackend", Sockets)
        with pytest.raises(DeliveryFailed):
            post(f"http://rebind.example:{port}/", b"{}", {}, allow_private=False)
        assert (asked, connected, receiver.requests) == (["rebind.example"], ["192.0.2.77"], [])


def test_a_redirect_is_an_answer_and_nothing_more():
    with receiving() as receiver:
        receiver.status = lambda: 307
        assert post(f"{receiver.url}/hook", b"{}", {}, allow_private=True) == 307
        assert [path for path, *_ in receiver.requests] == ["/hook"]


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with receiving() as receiver:
        assert post(f"{receiver.url}/hook?a=1", b'{"x":1}', {"a": "b"}, allow_private=True) == 204
        ((path, headers, body),) = receiver.requests
        assert (path, headers["a"], body) == ("/hook?a=1", "b", b'{"x":1}')


def test_a_receiver_that_drips_its_answer_is_left_at_the_deadline():
    listener = socket.create_server(("127.0.0.1", 0))
    left = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
                try:
                    connection.send(bytes([byte]))
                except OSError:
                    left.set()
                    return
                time.sleep(0.05)

    thread = threading.Thread(target=drip)
    thread.start()
    begin = time.monotonic()
    with pytest.raises(DeliveryFailed):
        post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {}, allow_private=True, total_seconds=0.5)
    assert time.monotonic() - begin < 60.0, "the whole answer would take 500 s"
    assert left.wait(20)
    thread.join()
    listener.close()


def test_an_answer_without_end_is_not_read():
    listener = socket.create_server(("127.0.0.1", 0))
    sent = 0

    def flood() -> None:
        nonlocal sent
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
                while sent < 2**30:
                    sent += connection.send(b"x" * 65536)
            except OSError:
                return

    thread = threading.Thread(target=flood)
    thread.start()
    assert post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {}, allow_private=True) == 200
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert sent < 2**28
    listener.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
@pytest.mark.parametrize(("name", "arrives"), [("localhost", True), ("other.example", False)])
def test_tls_asks_for_the_certificate_of_the_name_and_connects_to_the_address(tmp_path, monkeypatch, name, arrives):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    subprocess.run(
        [*request, "-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    safe_http._tls.cache_clear()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with receiving(tls) as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        if arrives:
            assert post(url, b"{}", {}, allow_private=True) == 204
        else:
            with pytest.raises(DeliveryFailed, match="certificate"):
                post(url, b"{}", {}, allow_private=True)
        assert len(receiver.requests) == arrives
    safe_http._tls.cache_clear()
