"""The files of an experiment: listed, sent as a whole or in ranges, and given out by links that work once."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.concurrency import run_in_threadpool

from service.api.deps import (
    GUARDED,
    CallerDep,
    ExperimentFilesDep,
    FileLinksDep,
    FilesDep,
    FileThreadsDep,
)
from service.api.file_stream import BINARY, MEDIA_TYPES, FileResponse, byte_range, described
from service.api.live.following import NEEDS_ROOM, TheStay
from service.api.problems import documented
from service.auth.file_links import LinkedFile
from service.domain.filters import PAGE_LIMIT
from service.experiments.files import ExperimentFiles, OpenFile, StoredFile, UnreadableFile
from service.schemas.files import FileLinkView, FileList, FileView, UnreadableFileView

LONGEST_PATH = 1024
router = APIRouter(
    prefix="/v1/experiments/{experiment_id}",
    tags=["files"],
    dependencies=GUARDED,
    responses=documented(401, 403, 404, 422),
)
FilePath = Annotated[str, Path(min_length=1, max_length=LONGEST_PATH, description="as the list has it")]
WithDigest = Annotated[bool, Query(description="compute the SHA-256 for Repr-Digest where it is not known")]
RangeHeader = Annotated[
    str | None, Header(alias="Range", max_length=256, description="bytes=first-last, first- or -count; one range")
]
IfRange = Annotated[
    str | None, Header(alias="If-Range", max_length=256, description="the ETag that the range is meant for")
]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", max_length=1024, description="ETags that are there: 304 for one of them")
]


@dataclass(frozen=True)
class Conditions:
    """Which part of a file is wanted, and of which version."""

    range: str | None
    if_range: str | None
    if_none_match: str | None

    def is_there(self, file: OpenFile) -> bool:
        """Whether the caller has this version already."""
        known = [one.strip().removeprefix("W/") for one in (self.if_none_match or "").split(",")]
        return file.etag in known or known == ["*"]

    def span(self, file: OpenFile) -> tuple[int, int] | None:
        """Which bytes to send, None for all; closes the file where it has none of them."""
        if self.range is None or (self.if_range is not None and self.if_range.strip() != file.etag):
            return None
        try:
            return byte_range(self.range, file.size)
        except BaseException:
            file.close()
            raise


def conditions_of(
    range_: RangeHeader = None, if_range: IfRange = None, if_none_match: IfNoneMatch = None
) -> Conditions:
    """The conditions in a request's headers."""
    return Conditions(range_, if_range, if_none_match)


ConditionsDep = Annotated[Conditions, Depends(conditions_of)]
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_CONTENT = {kind.split(";")[0]: _BYTES for kind in (BINARY, *sorted(MEDIA_TYPES.values()))}
_HEADERS = {
    name: {"description": text, "schema": {"type": "string"}}
    for name, text in {
        "Accept-Ranges": "bytes",
        "Content-Disposition": "attachment, with the file's name",
        "ETag": "of this version of the file",
        "Last-Modified": "when it was last written to",
        "Repr-Digest": "the SHA-256 of the whole file (RFC 9530), where it is known or was asked for",
    }.items()
}
SENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file, as long as it is now", "content": _CONTENT, "headers": _HEADERS},
    206: {
        "description": "The range that was asked for",
        "content": _CONTENT,
        "headers": _HEADERS | {"Content-Range": {"description": "bytes first-last/size", "schema": {"type": "string"}}},
    },
    **documented(404, 410, 416, 422, 429, 503),
}


@router.get("/files", responses=documented(410, 503))
def list_files(
    row: ExperimentFilesDep,
    files: FilesDep,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = PAGE_LIMIT,
    cursor: Annotated[str, Query(max_length=LONGEST_PATH, description="`next_cursor` of the page before")] = "",
) -> FileList:
    """List the files of an experiment by path. `sha256` is there for small files, and where it is known.

    What cannot be read is named beside them.
    """
    found = [file for file in files.list(row.id) if file.path > cursor]
    page = found[:limit]
    return FileList(
        items=[FileView.model_validate(file) for file in page if isinstance(file, StoredFile)],
        unreadable=[UnreadableFileView.model_validate(file) for file in page if isinstance(file, UnreadableFile)],
        next_cursor=page[-1].path if len(found) > limit else None,
    )


@router.head("/files/{path:path}", include_in_schema=False, dependencies=NEEDS_ROOM)
async def describe_file(
    row: ExperimentFilesDep, path: FilePath, files: FilesDep, sha256: WithDigest = False
) -> Response:
    """What GET would say of the whole file."""
    file = await run_in_threadpool(files.open, row.id, path)
    return described(file, await digest_of(files, file, wanted=sha256))


@router.get(
    "/files/{path:path}",
    response_class=Response,
    dependencies=NEEDS_ROOM,
    responses=SENT | {304: {"description": "It is one of the versions that If-None-Match names"}},
)
async def send_file(
    row: ExperimentFilesDep,
    path: FilePath,
    *,
    conditions: ConditionsDep,
    files: FilesDep,
    threads: FileThreadsDep,
    stay: TheStay,
    sha256: WithDigest = False,
) -> Response:
    """Send a file, or one range of it. A file that grows is sent as long as it is when it is asked for."""
    file = await run_in_threadpool(files.open, row.id, path)
    if conditions.is_there(file):
        with file:
            return Response(status_code=304, headers={"ETag": file.etag})
    digest = await digest_of(files, file, wanted=sha256)
    return FileResponse(file, conditions.span(file), sha256=digest, limiter=threads, goes_on=stay.goes_on)


@router.post("/files/{path:path}/link", status_code=201, responses=documented(410, 503))
def make_link(
    row: ExperimentFilesDep, path: FilePath, files: FilesDep, links: FileLinksDep, caller: CallerDep
) -> FileLinkView:
    """Make a link to a file, which works once within 60 seconds and needs no token. For users, not for viewers."""
    with files.open(row.id, path) as file:
        secret, expires_at = links.make(LinkedFile(row.id, path), caller=caller)
        url = f"/v1/downloads/{quote(file.name, safe='')}?{urlencode({'key': secret})}"
    return FileLinkView(url=url, expires_at=expires_at)


async def digest_of(files: ExperimentFiles, file: OpenFile, *, wanted: bool) -> str | None:
    """The file's digest, where it is known, or wanted and computed. Closes the file where that fails."""
    if not wanted:
        return file.sha256
    try:
        return await asyncio.shield(asyncio.wrap_future(files.sha256(file)))  # others may wait for it too
    except BaseException:
        file.close()
        raise
