"""Bytes that outlive their makers: sources, tiles, previews and results, named by what they are.

A blob's name is the SHA-256 of its bytes, so writing it twice is writing it once, and reading it proves it.
Behind stands fsspec: a local folder, or a bucket. This module refuses to know what the bytes mean.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from serve_app.errors import BlobCorrupt, BlobFailed, BlobMissing, ConfigurationError

_CHUNK_BYTES = 2**20
_SPOOLED_BYTES = 8 * 2**20  # what is larger waits on the disk for its name


@dataclass(frozen=True, slots=True)
class Blob:
    """A kept blob: its name, and how long it is."""

    name: str
    size_bytes: int


def blob_of(data: bytes) -> Blob:
    """The name that bytes have, kept or not."""
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True, slots=True)
class Kept:
    """A blob's file: its name, length, and when it was written, s since 1970."""

    name: str
    size_bytes: int
    written_at: float


class Blobs:
    """A store of blobs.

    Args:
        url: A folder (`file:///srv/tessera`) or a bucket (`s3://bucket/prefix`).
        options: For fsspec's file system: endpoints, keys.

    Raises:
        ConfigurationError: if fsspec knows no such file system.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        try:
            # a listing that is remembered would hide what another process has swept
            chosen = {"use_listings_cache": False, **(options or {})}
            self._files, self._root = fsspec.core.url_to_fs(url, **chosen)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(f"jobs.blobs_url: {error}", field="jobs.blobs_url") from None
        self._local = isinstance(self._files, LocalFileSystem)

    async def put(self, data: bytes | AsyncIterator[bytes]) -> Blob:
        """Keeps bytes; what is kept already is not written again.

        Args:
            data: All of them, or chunks in order.
        """
        if isinstance(data, bytes):
            return await asyncio.to_thread(self._keep_bytes, data)
        with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as spool:
            digest = hashlib.sha256()
            async for chunk in data:
                digest.update(chunk)
                await asyncio.to_thread(spool.write, chunk)
            size = spool.tell()
            spool.seek(0)
            name = digest.hexdigest()
            await asyncio.to_thread(self._write, name, spool)
        return Blob(name, size)

    async def get(self, name: str) -> bytes:
        """Reads a blob whole.

        Raises:
            BlobMissing: it is not there.
            BlobCorrupt: it is not what was written.
        """
        data = await asyncio.to_thread(self._read, name)
        if hashlib.sha256(data).hexdigest() != name:
            raise BlobCorrupt(f"the blob {name} is not what was written")
        return data

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        """Reads a blob in chunks; that it is what was written is known at its end. Raises as `get`."""
        digest = hashlib.sha256()
        file = await asyncio.to_thread(self._open, name)
        try:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                digest.update(chunk)
                yield chunk
        finally:
            await asyncio.to_thread(file.close)
        if digest.hexdigest() != name:
            raise BlobCorrupt(f"the blob {name} is not what was written")

    async def exists(self, name: str) -> bool:
        """Whether a blob is there."""
        return bool(await asyncio.to_thread(self._files.exists, self._path(name)))

    async def delete(self, name: str) -> None:
        """Removes a blob; one that is not there is gone already."""
        await asyncio.to_thread(self._delete, name)

    async def files(self) -> AsyncIterator[Kept]:
        """All blobs' files, folder by folder; what was being written when its writer died is not one."""
        for folder in range(256):
            for found in await asyncio.to_thread(self._folder, f"{folder:02x}"):
                yield found

    def beside(self, folder: str) -> list[tuple[str, int]]:
        """Files beside the blobs: paths below the root in order, and their lengths; links are passed over."""
        try:
            found = self._files.find(f"{self._root}/{folder}", detail=True)
        except FileNotFoundError:
            return []
        start = len(self._root) + 1
        return sorted(
            (path[start:], int(facts.get("size") or 0))
            for path, facts in found.items()
            if facts["type"] == "file" and not self._leads_away(path)
        )

    def read_beside(self, path: str) -> bytes:
        """One of them; raises BlobMissing, OSError."""
        whole = f"{self._root}/{path}"
        if self._leads_away(whole):
            raise BlobMissing(f"{path} is not there")
        found: bytes = self._files.cat_file(whole)
        return found

    def _leads_away(self, path: str) -> bool:
        """Whether a local path is another's name."""
        return self._local and Path(path).resolve() != Path(self._root).resolve().joinpath(
            Path(path).relative_to(self._root)
        )

    def _keep_bytes(self, data: bytes) -> Blob:
        blob = blob_of(data)
        self._write(blob.name, io.BytesIO(data))
        return blob

    def _write(self, name: str, source: IO[bytes]) -> None:
        path = self._path(name)
        if self._files.exists(path):
            return
        if not self._local:  # an object appears whole, at its last part
            with self._files.open(path, "wb") as target:
                _copy(source, target)
            return
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{name}.{uuid.uuid4().hex}")
        try:
            with partial.open("wb") as target:
                _copy(source, target)
                target.flush()
                _sync(target.fileno())
            partial.replace(final)
            _sync_folder(final.parent)
        except OSError as error:
            raise BlobFailed(
                f"a blob of {source.tell()} bytes cannot be kept: {error.strerror}"
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def _read(self, name: str) -> bytes:
        with self._open(name) as file:
            found: bytes = file.read()
        return found

    def _open(self, name: str) -> Any:
        try:
            return self._files.open(self._path(name), "rb")
        except FileNotFoundError:
            raise BlobMissing(f"the blob {name} is not there") from None

    def _delete(self, name: str) -> None:
        try:
            self._files.rm_file(self._path(name))
        except FileNotFoundError:
            return

    async def tidy(self, before: float) -> int:
        """Removes what writers that died have left half written; how many files it was.

        Args:
            before: Writing began earlier, s since 1970: nobody is at it any more.
        """
        return await asyncio.to_thread(self._tidy, before) if self._local else 0

    def _tidy(self, before: float) -> int:
        found = 0
        for path in Path(self._root).glob("blobs/*/*/.*"):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                found += 1
        return found

    def _folder(self, start: str) -> list[Kept]:
        try:
            listed = self._files.find(f"{self._root}/blobs/{start}", detail=True)
        except FileNotFoundError:
            return []
        return list(_entries(listed))

    def _path(self, name: str) -> str:
        if not _is_name(name):
            raise BlobMissing(f"{name!r} is no blob's name")
        return f"{self._root}/blobs/{name[:2]}/{name[2:4]}/{name}"


def _is_name(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _entries(listed: Mapping[str, Any]) -> Iterator[Kept]:
    for path, facts in listed.items():
        name = path.rsplit("/", 1)[-1]
        if not _is_name(name):
            continue
        when = facts.get("mtime") or facts.get("LastModified") or 0.0
        seconds = when.timestamp() if hasattr(when, "timestamp") else float(when)
        yield Kept(name, int(facts.get("size") or 0), seconds)


def _copy(source: IO[bytes], target: Any) -> None:
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """A file's name must not outlive a power cut that its bytes did not."""
    os.fsync(descriptor)
