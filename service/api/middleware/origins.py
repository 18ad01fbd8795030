"""Where a browser's request comes from: a page of another site must not change anything here, token or none.

A browser sends a POST without a body anywhere unasked, and on a server without tokens whoever reaches it is an admin.
Programs send neither header and are not concerned. What a browser says of itself in these two, no page can change.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

OURS = frozenset({"same-origin", "none"})  # of Sec-Fetch-Site; none: typed in, or a bookmark
LONGEST_SHOWN = 100


def foreign_origin(headers: Headers, allowed_hosts: Collection[str]) -> str | None:
    """The origin of a request that comes from another site's page, in words; None where it is our own, or no browser's.

    Ours is the origin that the request is sent to. Behind a proxy that puts a Host of its own that is another one: then
    it is an allowed host at the port of its scheme. Another port of this machine is another site: anybody's page.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return None if site.lower() in OURS else (origin or f"a {site} page")[:LONGEST_SHOWN]
    if origin is None:
        return None
    try:
        parts = urlsplit(origin.lower())
        host, port = parts.hostname, parts.port
    except ValueError:
        return origin[:LONGEST_SHOWN]
    default = {"http": ":80", "https": ":443"}.get(parts.scheme)
    if default is not None and host is not None:
        is_target = parts.netloc.removesuffix(default) == headers.get("host", "").lower().removesuffix(default)
        if is_target or (port is None and host in allowed_hosts):
            return None
    return origin[:LONGEST_SHOWN]
