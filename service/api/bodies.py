"""How the JSON of a body is read: with an end to how much may lie in it, before anything looks at what it says.

To validate a body is one call that the event loop, and every thread, waits for. What it costs goes by the number of
error items, of which there may be one for each field, and the 256 KiB of a body have room for 26,000.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from cbam_core.pointers import cut

MOST_FIELDS = 4000  # of all objects in a body together, each of which counts as one more; a large spec has 300
LONGEST_NAME = 64  # of a field, as far as it is told


class BoundedRoute(APIRoute):
    """The `route_class=` of a router that takes bodies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route, given a request that reads its body like this."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handle(_BoundedRequest(request.scope, request.receive))

        return bounded


class _BoundedRequest(Request):
    async def json(self) -> Any:
        return read_json(await self.body())


def read_json(body: bytes) -> Any:
    """The value. Raises HTTPException 422 where it has more fields than any body needs or one of them twice,
    JSONDecodeError."""
    fields = 0

    def counted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal fields
        fields += len(pairs) + 1
        if fields > MOST_FIELDS:
            raise HTTPException(422, f"the body has more than {MOST_FIELDS} fields in all; none needs so many")
        value = dict(pairs)
        if len(value) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise HTTPException(422, f"the field {cut(twice, LONGEST_NAME)!r} stands twice in one object")
        return value

    return json.loads(body, object_pairs_hook=counted)
