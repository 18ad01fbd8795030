"""Files by links that work once: the one part of the API that tells of experiments and asks for no token."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.concurrency import run_in_threadpool

from service.api.deps import FileLinksDep, FilesDep, FileThreadsDep, SeatsDep
from service.api.file_stream import FileResponse
from service.api.routers.files import SENT, Conditions, RangeHeader
from service.domain.roles import Caller, Role

router = APIRouter(prefix="/v1/downloads", tags=["files"])
WITH_LINKS = Caller("links", Role.VIEWER, token_id="links")
"""All who come with links share the room of one caller."""


async def _seated(seats: SeatsDep) -> AsyncIterator[None]:
    with seats.seat(WITH_LINKS):
        yield


@router.get("/{name}", response_class=Response, dependencies=[Depends(_seated)], responses=SENT)
async def use_link(
    name: Annotated[str, Path(min_length=1, max_length=255, description="the file's name")],
    key: Annotated[str, Query(min_length=1, max_length=128, description="the secret of the link")],
    *,
    links: FileLinksDep,
    files: FilesDep,
    threads: FileThreadsDep,
    range_: RangeHeader = None,
) -> Response:
    """Send the file of a link, or one range of it. The link is used by this, whatever becomes of the answer."""
    linked = await run_in_threadpool(links.use, key, name)
    file = await run_in_threadpool(files.open, linked.experiment_id, linked.path)
    return FileResponse(file, Conditions(range_, None, None).span(file), sha256=file.sha256, limiter=threads)
