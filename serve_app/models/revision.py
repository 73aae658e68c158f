"""Tells releases of a model apart without a registry: by the commit that its source pins, else by its files.

A result names it, so that who makes it again knows whether the weights are the same. This module refuses to
know what the files mean, and reads little of those that are large: a server must not read 30 GB to start.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from serve_app.models.copies import origin_of

WHOLE_BYTES = 64 * 2**20
"""Files up to this are hashed whole; of larger ones the size and this much split between both ends."""

_COMMIT = re.compile(r"[\w.-]+/[\w.-]+@(?P<commit>[0-9a-f]{40})(:.*)?")
_FILES = ("tessera.json", "model_index.json", "*.safetensors", "*/*.json", "*/*.safetensors")
_SHOWN = 16  # hexadecimal digits


def find_revision(folder: Path) -> str:
    """Finds a model's revision.

    Args:
        folder: Of the model, see `catalog.find_model`.

    Returns:
        The commit of the hub that its source pins; else 16 hexadecimal digits of the SHA-256 of its files and,
        where only its description lies here, of where that came from.
    """
    origin = origin_of(folder) or ""
    pinned = _COMMIT.fullmatch(origin)
    if pinned:
        return pinned["commit"]
    digest = hashlib.sha256(origin.encode())
    for path in sorted({path for pattern in _FILES for path in folder.glob(pattern)}):
        size = path.stat().st_size
        digest.update(f"\0{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= WHOLE_BYTES:
                digest.update(file.read())
                continue
            digest.update(file.read(WHOLE_BYTES // 2))
            file.seek(-(WHOLE_BYTES // 2), 2)
            digest.update(file.read())
    return digest.hexdigest()[:_SHOWN]
