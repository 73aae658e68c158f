"""Replicate's files: a picture that is uploaded first and named by its address in a prediction.

A file is a blob; its name is the SHA-256 of its bytes. It refuses to know predictions.
"""

from __future__ import annotations

import re
import time
from urllib.parse import urlsplit

from fastapi import APIRouter
from starlette.requests import Request

from serve_app.api.body import ALLOWANCE_BYTES, MULTIPART, bounded
from serve_app.api.dialects.replicate_schemas import FileAnswer
from serve_app.api.jobs.desk import Desk
from serve_app.api.jobs.schemas import moment
from serve_app.api.multipart import IMAGE_FIELD, Form, read_form
from serve_app.api.openapi import failures
from serve_app.api.problems import UnsupportedBody
from serve_app.api.schemas import Problem
from serve_app.errors import BlobMissing, InvalidParameter, NotFound
from serve_app.settings import Settings

_PATH = re.compile(r"/v1/files/([0-9a-f]{64})")


class Files:
    """Files over blobs."""

    def __init__(self, desk: Desk, settings: Settings) -> None:
        self._desk = desk
        self._settings = settings

    async def read(self, request: Request, url: str) -> bytes | None:
        """The bytes of a file whose address is one of ours, else None; raises NotFound."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        found = _PATH.fullmatch(parts.path)
        if found is None or parts.netloc != request.url.netloc:
            return None
        return await self.file(found[1])

    async def file(self, name: str) -> bytes:
        """A kept file; raises NotFound."""
        try:
            return await self._desk.blobs.get(name)
        except BlobMissing:
            raise NotFound(f"there is no file {name}", field="id") from None

    async def keep(self, request: Request) -> FileAnswer:
        """Takes a file in."""
        content_type = request.headers.get("Content-Type", "")
        if content_type.split(";")[0].strip().lower() != MULTIPART:
            raise UnsupportedBody(
                f"Content-Type: only {MULTIPART} is read here",
                field="Content-Type",
                allowed=MULTIPART,
            )
        limit_bytes = self._settings.images.upload_bytes
        chunks = bounded(request, limit_bytes, limit_bytes + ALLOWANCE_BYTES)
        form = await read_form(chunks, content_type, limit_bytes, _FileForm)
        data = form.files.get(IMAGE_FIELD)
        if data is None:
            raise InvalidParameter("content: missing", field="content", allowed="one file")
        return self.described(request, await self._desk.keep(data), len(data), form.filename)

    def described(self, request: Request, name: str, size: int, filename: str) -> FileAnswer:
        """A file in this dialect's words; it stays for the time that jobs leave unused blobs alone."""
        now = time.time()
        return FileAnswer(
            id=name,
            name=filename or name,
            content_type="application/octet-stream",
            size=size,
            etag=name,
            checksums={"sha256": name},
            created_at=str(moment(now)),
            expires_at=moment(now + self._settings.jobs.orphan_grace_s),
            urls={"get": f"{root(request)}/v1/files/{name}"},
        )


class _FileForm(Form):
    """A form whose file is named `content`."""

    def on_headers_finished(self) -> None:
        self._disposition = self._disposition.replace(b'name="content"', b'name="image"')
        super().on_headers_finished()


def file_routes(files: Files) -> APIRouter:
    """Uploading, and looking up."""
    router = APIRouter(tags=["dialect: Replicate"])
    content = {"type": "string", "format": "binary"}
    form = {"type": "object", "required": ["content"], "properties": {"content": content}}

    @router.post(
        "/v1/files",
        status_code=201,
        responses=failures(Problem, 400, 413, 415, 422, 500),
        openapi_extra={"requestBody": {"required": True, "content": {MULTIPART: {"schema": form}}}},
    )
    async def create_file(request: Request) -> FileAnswer:
        """Keeps a picture for a prediction, for an hour unless it is used."""
        return await files.keep(request)

    @router.get("/v1/files/{name}", responses=failures(Problem, 404, 422, 500))
    async def get_file(request: Request, name: str) -> FileAnswer:
        """What is known of a kept file; its bytes are not given out."""
        if re.fullmatch(r"[0-9a-f]{64}", name) is None:
            raise NotFound(f"there is no file {name[:80]!r}", field="name")
        return files.described(request, name, len(await files.file(name)), "")

    return router


def root(request: Request) -> str:
    """The server's root as the client knows it, without a slash at the end."""
    return str(request.base_url).rstrip("/")
