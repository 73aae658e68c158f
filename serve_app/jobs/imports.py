"""Pictures that an operator has put into the blob store's own place, under `imports/TENANT/`, for jobs to take.

Whoever is one tenant sees nothing of another's, and nothing outside. It refuses to know what is a picture.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from serve_app.errors import BlobMissing, InvalidParameter
from serve_app.jobs.blobs import Blobs

FOLDER = "imports"
FIELD = "prefix"


@dataclass(frozen=True, slots=True)
class Import:
    """A file that may be taken: its path below the tenant's folder, and its length."""

    path: str
    size_bytes: int


class Imports:
    """One tenant's files.

    Args:
        blobs: In whose place they lie.
        tenant: Whose.
    """

    def __init__(self, blobs: Blobs, tenant: str) -> None:
        self._blobs = blobs
        self._base = f"{FOLDER}/{tenant}"

    async def listed(self, prefix: str) -> list[Import]:
        """The files of a folder and of those below it, or the one file of that name, in order of their paths.

        Raises:
            InvalidParameter: not a folder's name, or nothing is there.
        """
        parts = [part for part in prefix.split("/") if part]
        if any(part in (".", "..") or not part.isprintable() or "\\" in part for part in parts):
            raise InvalidParameter(
                f"{FIELD}: not a folder below your imports", field=FIELD, allowed="FOLDER/FOLDER"
            )
        place = "/".join([self._base, *parts])
        found = await asyncio.to_thread(self._blobs.beside, place)
        if not found:
            raise InvalidParameter(
                f"{FIELD}: there is nothing under {prefix!r}",
                field=FIELD,
                allowed="a folder with files below your imports",
            )
        return [Import(path.removeprefix(f"{self._base}/"), size) for path, size in found]

    async def read(self, found: Import) -> bytes:
        """A file's bytes; raises InvalidParameter where it is gone."""
        try:
            return await asyncio.to_thread(self._blobs.read_beside, f"{self._base}/{found.path}")
        except (BlobMissing, OSError):
            raise InvalidParameter(f"{FIELD}: {found.path} cannot be read", field=FIELD) from None
