"""Pictures as callers have them: a path, bytes, an open file or a Pillow image.

It refuses to know picture formats; a Pillow image writes itself.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Protocol, runtime_checkable

from serve_app.contracts import UpscaleResult


@runtime_checkable
class PillowImage(Protocol):
    """What is used of `PIL.Image.Image`."""

    info: dict[Any, Any]

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Writes itself."""
        ...


PictureLike = str | os.PathLike[str] | bytes | IO[bytes] | PillowImage


class Named(NamedTuple):
    """A picture's bytes, and the name by which its results are known."""

    name: str
    data: bytes


class Upscaled(UpscaleResult):
    """A result: `image` is the encoded file; sizes, seed, timings and the fidelity report are beside it."""

    def save(self, target: str | os.PathLike[str]) -> Path:
        """Writes the file whole or not at all; raises OSError.

        It is in the format that was asked for, whatever the name of `target` says.
        """
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(self.image)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def open(self) -> Any:
        """The result as a `PIL.Image.Image`; needs Pillow, and for AVIF and JPEG XL what Pillow needs."""
        from PIL import Image

        return Image.open(io.BytesIO(self.image))


async def bytes_of(picture: PictureLike | Named) -> bytes:
    """A picture as an encoded file.

    Raises:
        OSError: a file cannot be read.
        TypeError: this is no picture.
    """
    if isinstance(picture, Named):
        return picture.data
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str | os.PathLike):
        return await asyncio.to_thread(Path(picture).read_bytes)
    if isinstance(picture, PillowImage):
        return await asyncio.to_thread(_written, picture)
    if hasattr(picture, "read"):
        found = await asyncio.to_thread(picture.read)
        if isinstance(found, bytes):
            return found
    raise TypeError(
        f"a picture is a path, bytes, a binary file or a Pillow image, not {type(picture).__name__}"
    )


async def all_bytes_of(pictures: Mapping[str, PictureLike] | None) -> dict[str, bytes]:
    """Pictures for controls, by name; see `bytes_of`."""
    return {name: await bytes_of(picture) for name, picture in (pictures or {}).items()}


async def part_of(picture: PictureLike | Named, number: int) -> Path | Named:
    """A picture as a part of a job: a file stays a file, which is read while it is sent."""
    if isinstance(picture, Named):
        return picture
    if isinstance(picture, str | os.PathLike):
        return Path(picture)
    return Named(f"picture-{number}", await bytes_of(picture))


def file_name(item_name: str, media_type: str) -> str:
    """What to call an item's result: its name without folders, with the result's suffix."""
    stem = PurePosixPath(item_name.replace("\\", "/")).stem.lstrip(".") or "picture"
    return f"{stem}.{media_type.split('/')[-1]}"


def _written(picture: PillowImage) -> bytes:
    file = io.BytesIO()
    kept = {"icc_profile": picture.info["icc_profile"]} if "icc_profile" in picture.info else {}
    picture.save(file, "PNG", **kept)
    return file.getvalue()
