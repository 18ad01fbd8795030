"""Network addresses as URLs hold them, and this machine's own (loopback), for which no proxy is asked."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1", "[::1]")
"""As programs read `no_proxy`: some know networks, some want brackets."""


def host_and_port(host: str, port: int) -> str:
    """Both as they stand in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether an address, or the one name that stands for it, is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_here(url: str) -> bool:
    """Whether a URL leads to this machine by loopback, where no proxy can help."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:  # brackets that do not match
        return False


def mounts_for(url: str) -> dict[str, None]:
    """What httpx's `mounts=` takes for a client that talks to `url` alone: on this machine, no proxy for any scheme."""
    return dict.fromkeys(("all://", "http://", "https://")) if is_here(url) else {}


def without_proxy_to_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep programs of this environment from asking a proxy for loopback; none where there is none.

    An empty proxy would do for one program; but its children, and what else it fetches, may need the proxy.
    """
    given = ",".join(environment.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    if "*" in given.split(",") or not any(name.lower().endswith("_proxy") for name in environment):
        return {}
    names = list(dict.fromkeys(name for part in given.split(",") if (name := part.strip())))
    all_names = ",".join([*names, *(name for name in LOOPBACK if name not in names)])
    return {"no_proxy": all_names, "NO_PROXY": all_names}
