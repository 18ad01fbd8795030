"""Ports for servers that tests start."""

import itertools
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GIVEN_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nobody has, nor gets by chance until a server listens there, which may be seconds later.

    Below those that the kernel gives to whoever wants any: every client does, and Ray, dozens of times at its start.
    """
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise AssertionError("they begin again for ever")


def _below_those_given_out() -> Iterator[int]:
    """No port twice in a run, and hardly one of another run's on this machine; 0, which is any, where there are few."""
    first_given = int(GIVEN_OUT.read_text().split()[0]) if GIVEN_OUT.exists() else 32768
    ports = range(20_000, first_given)  # Ray's workers have those from 10002 to 19999
    return itertools.cycle(random.SystemRandom().sample(ports, len(ports)) if len(ports) > 1000 else [0])


_ports = _below_those_given_out()
