"""Reads a job's body, whatever its kind: pictures are kept as blobs as they arrive, the rest is collected.

It refuses to know what parameters mean, and how a job is stored.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from starlette.requests import Request

from serve_app.api.body import JSON, MULTIPART, parse_json, parse_object, tenant_of
from serve_app.api.jobs.desk import Desk
from serve_app.api.jobs.form import ARCHIVE_FIELD, TEXT_BYTES, File, JobForm
from serve_app.api.multipart import CONTROL_IMAGE_PREFIX, over_limit
from serve_app.api.problems import UnsupportedBody
from serve_app.errors import InvalidParameter, RequestError, TooLarge
from serve_app.fetch.settings import FetchSettings
from serve_app.fetch.target import Refused, target_of
from serve_app.jobs.archive import expand
from serve_app.jobs.imports import FIELD as PREFIX_FIELD
from serve_app.jobs.imports import Imports
from serve_app.jobs.planning import Seen, look
from serve_app.settings import Settings

ZIP = "application/zip"
ITEMS_FIELD = "items"
URLS_FIELD = "image_urls"
URL_FIELD = "image_url"
_SPOOLED_BYTES = 8 * 2**20
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Draft:
    """One picture before it is an item: a blob and what its header says, or what is wrong with it; or a URL."""

    name: str
    source: str | None = None
    url: str | None = None
    seen: Seen | None = None
    fault: RequestError | None = None
    given: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Gathered:
    """What a body held. `given` are the job's parameters as they came."""

    drafts: list[Draft] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    control_images: dict[str, str] = field(default_factory=dict)


async def gather(request: Request, desk: Desk, settings: Settings) -> Gathered:
    """Reads a body.

    Raises:
        UnsupportedBody: of a kind that is not read.
        RequestError: malformed, too large, or with nothing to do.
    """
    content_type = request.headers.get("Content-Type", "")
    kind = content_type.split(";")[0].strip().lower()
    gathering = _Gathering(desk, settings)
    if kind == MULTIPART:
        await gathering.multipart(request, content_type)
    elif kind == ZIP:
        await gathering.zip(request)
    elif kind == JSON:
        await gathering.json(request)
    else:
        raise UnsupportedBody(
            f"Content-Type: {kind or 'none'} is not read here",
            field="Content-Type",
            allowed=f"{MULTIPART}, {ZIP} or {JSON}",
        )
    if not gathering.found.drafts:
        raise InvalidParameter(
            "image: the job has no picture", field="image", allowed="at least one picture"
        )
    return gathering.found


class _Gathering:
    def __init__(self, desk: Desk, settings: Settings) -> None:
        self.found = Gathered()
        self._desk = desk
        self._settings = settings
        self._most = settings.jobs.items_per_job
        self._bytes_left = settings.jobs.upload_bytes

    async def multipart(self, request: Request, content_type: str) -> None:
        with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as spool:
            form = JobForm(self._settings.images.upload_bytes, spool)
            most = self._settings.jobs.upload_bytes + TEXT_BYTES
            async for file in form.read(_bounded(request, most), content_type):
                await self._take(file)
            if form.has_archive:
                await self._unpack(spool)
        texts = form.texts
        listed = texts.pop(ITEMS_FIELD, "")
        self.found.given = {
            k: v for k, v in texts.items() if v or k in ("prompt", "negative_prompt")
        }
        if listed:
            self._override(parse_json(listed.encode()))

    async def zip(self, request: Request) -> None:
        with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as spool:
            async for chunk in _bounded(request, self._settings.jobs.upload_bytes):
                await asyncio.to_thread(spool.write, chunk)
            await self._unpack(spool)
        self.found.given = dict(request.query_params)

    async def json(self, request: Request) -> None:
        body = b"".join([chunk async for chunk in _bounded(request, TEXT_BYTES)])
        fields = parse_object(body)
        urls = fields.pop(URLS_FIELD, None)
        items = fields.pop(ITEMS_FIELD, None)
        prefix = fields.pop(PREFIX_FIELD, None)
        self.found.given = fields
        if [urls, items, prefix].count(None) != 2:
            raise InvalidParameter(
                f"{URLS_FIELD}: give one of {URLS_FIELD}, {ITEMS_FIELD} and {PREFIX_FIELD}",
                field=URLS_FIELD,
                allowed="a list of URLs",
            )
        if prefix is not None:
            await self._import(prefix, tenant_of(request.headers))
            return
        for place, item in enumerate(_list(urls if items is None else items)):
            where = f"{URLS_FIELD if items is None else ITEMS_FIELD}[{place}]"
            given = {URL_FIELD: item} if items is None else _object(item, where)
            url = given.pop(URL_FIELD, None)
            name = given.pop("name", None)
            if not isinstance(name, str | None):
                raise InvalidParameter(f"{where}.name: not a text", field=f"{where}.name")
            self._add(
                Draft(
                    _name(name or _named(url)),
                    url=fetchable(url, where, self._settings.fetch),
                    given=given,
                )
            )

    async def _import(self, prefix: Any, tenant: str) -> None:
        """Takes what an operator has put there for the tenant."""
        if not self._settings.jobs.imports or not isinstance(prefix, str):
            raise InvalidParameter(
                f"{PREFIX_FIELD}: not taken here", field=PREFIX_FIELD, allowed="absent"
            )
        imports, limit = Imports(self._desk.blobs, tenant), self._settings.images.upload_bytes
        listed = await imports.listed(prefix)
        if len(listed) > self._most:
            raise self._too_many()
        for found in listed:
            if found.size_bytes > limit:
                raise over_limit(limit, f"{PREFIX_FIELD}: {found.path}")
            await self._take(File(PREFIX_FIELD, found.path, await imports.read(found)))

    def _too_many(self) -> TooLarge:
        return TooLarge(
            f"image: more than {self._most} pictures",
            field="image",
            allowed=f"at most {self._most} pictures a job",
        )

    async def _unpack(self, spool: IO[bytes]) -> None:
        most, limit = self._most - len(self.found.drafts), self._settings.images.upload_bytes
        entries = expand(spool, most, limit, self._bytes_left)
        while (entry := await asyncio.to_thread(next, entries, None)) is not None:
            await self._take(File(ARCHIVE_FIELD, *entry))

    async def _take(self, file: File) -> None:
        """Keeps a picture; one that cannot be read is kept too: its item will say why it failed."""
        self._bytes_left -= len(file.data)
        if self._bytes_left < 0:
            raise _over_all(self._settings.jobs.upload_bytes)
        limits = self._settings.images
        if file.field.startswith(CONTROL_IMAGE_PREFIX):
            look(file.data, limits, file.field)
            name = file.field.removeprefix(CONTROL_IMAGE_PREFIX)
            if name in self.found.control_images:
                raise InvalidParameter(
                    f"{file.field}: given twice", field=file.field, allowed="once"
                )
            self.found.control_images[name] = await self._desk.keep(file.data)
            return
        seen: Seen | None = None
        fault: RequestError | None = None
        try:
            seen = await asyncio.to_thread(look, file.data, limits)
        except RequestError as error:
            fault = error
        source = await self._desk.keep(file.data)
        self._add(Draft(_name(file.filename), source, seen=seen, fault=fault))

    def _add(self, draft: Draft) -> None:
        if len(self.found.drafts) == self._most:
            raise self._too_many()
        self.found.drafts.append(draft)

    def _override(self, listed: Any) -> None:
        """Gives pictures parameters of their own, by name."""
        given: dict[str, dict[str, Any]] = {}
        names = {draft.name for draft in self.found.drafts}
        for place, item in enumerate(_list(listed)):
            where = f"{ITEMS_FIELD}[{place}]"
            fields = _object(item, where)
            name = fields.pop("name", None)
            if not isinstance(name, str) or _name(name) not in names:
                raise InvalidParameter(
                    f"{where}.name: no picture of that name was sent",
                    field=f"{where}.name",
                    allowed="the name of a picture",
                )
            given[_name(name)] = fields
        self.found.drafts = [
            Draft(d.name, d.source, d.url, d.seen, d.fault, given.get(d.name, {}))
            for d in self.found.drafts
        ]


async def _bounded(request: Request, most_bytes: int) -> AsyncIterator[bytes]:
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > most_bytes:
            raise _over_all(most_bytes)
        yield chunk


def fetchable(url: Any, where: str, rules: FetchSettings) -> str:
    """A picture's address, judged by its spelling; where it leads is judged when it is fetched.

    Args:
        url: As it came.
        where: Its name in what errors say.
        rules: Whether and what is fetched.

    Raises:
        InvalidParameter: it is not one that would be fetched.
    """
    if not rules.enabled:
        raise InvalidParameter(
            f"{where}: pictures are not fetched here", field=where, allowed="absent"
        )
    try:
        if not isinstance(url, str):
            raise Refused("not a text", "a URL")
        target_of(url, rules)
    except Refused as refused:
        raise InvalidParameter(
            f"{where}: {refused.reason}", field=where, allowed=refused.allowed
        ) from None
    return url


def _over_all(most_bytes: int) -> TooLarge:
    return TooLarge(
        f"body: the submission is over {most_bytes} bytes",
        field="body",
        allowed=f"at most {most_bytes} bytes in all, unpacked",
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidParameter(f"{ITEMS_FIELD}: not a list", field=ITEMS_FIELD, allowed="a list")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidParameter(f"{where}: not an object", field=where, allowed="an object")
    return dict(value)


def _named(url: Any) -> str:
    try:
        return PurePosixPath(urlsplit(str(url)).path).name
    except ValueError:
        return ""


def _name(given: Any) -> str:
    """A name that any database and any terminal takes: its last part, without control characters."""
    plain = str(given).encode("utf-8", "replace").decode()
    last = PurePosixPath(plain.replace("\\", "/")).name
    return re.sub(r"[\x00-\x1f\x7f]", "_", last)[:_LONGEST_NAME] or "picture"
