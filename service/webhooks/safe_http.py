"""One POST to an address that a stranger chose, without reaching anything that the stranger could not reach alone.

The name is resolved once, every address that it has is checked, and the connection goes to a checked address: a name
server that gives another answer the second time (DNS rebinding) is never asked a second time. No redirect is followed,
no proxy of the environment is used, nothing of the answer but its status is read, and all of it ends by a deadline.
"""

import socket
import time
from collections.abc import Iterable, Mapping
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from ssl import SSLContext
from typing import Any

import httpcore2

from service.errors import AddressRefused, DeliveryFailed

TOTAL_SECONDS = 10.0
NAT64 = ip_network("64:ff9b::/96")  # an IPv4 address in IPv6 clothes
NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        # recommended_v1 of microsoft-antissrf 1.0.0, without NAT64; 168.63.129.16 is a part of every Azure machine
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4"),
        *("240.0.0.0/4", "::1/128", "::/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23"),
        *("2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"),
        *("fec0::/10", "ff00::/8"),
        *("::/96", "::ffff:0:0:0/96"),  # IPv4 in older clothes, which some systems still take off
    )
)
Address = IPv4Address | IPv6Address


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool, total_seconds: float = TOTAL_SECONDS
) -> int:
    """Send the body. Returns the status of the answer. Raises AddressRefused, DeliveryFailed."""
    deadline = time.monotonic() + total_seconds
    pool = httpcore2.ConnectionPool(
        ssl_context=_tls(),
        network_backend=_Checked(deadline, allow_private=allow_private),
        keepalive_expiry=0.0,
    )
    plain = [(name.encode(), value.encode()) for name, value in headers.items()]
    try:
        with pool, pool.stream("POST", url, headers=plain, content=body) as response:
            return int(response.status)
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
        raise DeliveryFailed(_in_words(error)) from error


def is_public(address: Address) -> bool:
    """Whether anybody on the internet can reach it. What is translated on the way is judged by what comes of it."""
    if isinstance(address, IPv6Address):
        inner = IPv4Address(int(address) & 0xFFFF_FFFF) if address in NAT64 else address.ipv4_mapped
        if inner is not None:
            return is_public(inner)
    return address.is_global and not any(address in network for network in NOT_PUBLIC)


def checked(host: str, addresses: Iterable[Address], *, allow_private: bool) -> list[Address]:
    """The addresses of a host, if all of them may be connected to. Raises AddressRefused, DeliveryFailed."""
    found = list(addresses)
    if not found:
        raise DeliveryFailed(f"{host} has no address")
    if not allow_private and not all(map(is_public, found)):
        raise AddressRefused(f"{host} is not on the public internet; CBAM_WEBHOOK_ALLOW_PRIVATE would allow it")
    return found


class _Checked(httpcore2.NetworkBackend):
    """Connects by checked address; TLS still asks for the certificate of the name."""

    def __init__(self, deadline: float, *, allow_private: bool) -> None:
        self.deadline = deadline
        self.allow_private = allow_private
        self.sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first of the host's addresses that answers."""
        error: Exception | None = None
        for address in checked(host, _resolve(host, port), allow_private=self.allow_private):
            try:
                stream = self.sockets.connect_tcp(
                    str(address), port, _left(self.deadline), local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as refused:
                error = refused
                continue
            return _Hurried(stream, self.deadline)
        raise error or httpcore2.ConnectError("no address")


class _Hurried(httpcore2.NetworkStream):
    """A stream on which all operations together end by the deadline, however slowly the other side drips."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self.stream = stream
        self.deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        """What has come."""
        return self.stream.read(max_bytes, _left(self.deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        """Send it."""
        self.stream.write(buffer, _left(self.deadline))

    def close(self) -> None:
        """Hang up."""
        self.stream.close()

    def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        """Go on in TLS."""
        return _Hurried(self.stream.start_tls(ssl_context, server_hostname, _left(self.deadline)), self.deadline)

    def get_extra_info(self, info: str) -> Any:
        """As of the stream."""
        return self.stream.get_extra_info(info)


@cache
def _tls() -> SSLContext:
    """The certificates of SSL_CERT_FILE or SSL_CERT_DIR, else the system's. Made once: it takes 20 ms of CPU."""
    return httpcore2.default_ssl_context()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout("the answer did not come in time")
    return left


def _resolve(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryFailed(f"{host} cannot be resolved") from error
    return [ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]


def _in_words(error: Exception) -> str:
    return str(error) or type(error).__name__
