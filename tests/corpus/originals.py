"""One whole picture in each format that is read; what the corpus cuts, bends and relabels."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any

import pillow_heif
from PIL import Image

from serve_app.testing import photo_like

PHOTO = photo_like(48, 64)
FORMATS = ("png", "jpeg", "webp", "avif", "heic", "tiff", "bmp", "gif")
TOLERANCE = {
    "png": 0.5,
    "tiff": 0.5,
    "bmp": 0.5,
    "gif": 12,
    "jpeg": 5,
    "webp": 5,
    "avif": 5,
    "heic": 5,
}
"""Mean levels that an encoder may have taken from `PHOTO`."""


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encodes with Pillow, or for `heic` with libheif."""
    file = BytesIO()
    if kind == "heic":
        heif = pillow_heif.from_pillow(image)
        for more in options.pop("append_images", ()):
            heif.add_from_pillow(more)
        heif.save(file, **{"quality": 95, "chroma": 444, **options})
    else:
        image.save(file, kind.upper(), **options)
    return file.getvalue()


@cache
def original(kind: str) -> bytes:
    """`PHOTO` as a file of `FORMATS`."""
    lossy = {"quality": 95} if kind in ("jpeg", "webp", "avif", "heic") else {}
    options = {"compression": "tiff_adobe_deflate"} if kind == "tiff" else lossy
    return saved(Image.fromarray(PHOTO), kind, **options)
