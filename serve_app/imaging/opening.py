"""Opens a file with the one decoder of its format. Only `codec` calls it, within a bounded process.

Decoders are called by name, so that exactly these can be reached. What they hand over is a picture that has
not been computed yet: `unpack` draws its rows. This module refuses to know limits, colour and orientation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import pillow_heif
import pyvips
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile

from serve_app.imaging.boxes import without_turns
from serve_app.imaging.containers import SourceFormat, gif_frame
from serve_app.imaging.inspect import Header
from serve_app.imaging.spaces import SRGB, Space, profile

# The rows are read once, from top to bottom. Damage that a viewer would paint over is an error here.
_STRICT = {"access": "sequential", "fail_on": "error"}
_BLOBS = {"icc_profile": "icc-profile-data", "exif": "exif-data", "xmp": "xmp-data"}

pyvips.cache_set_max(0)  # pictures of strangers are not kept
pyvips.concurrency_set(1)


def _with_vips(loader: str, **options: Any) -> Callable[[bytes], pyvips.Image]:
    return lambda data: pyvips.Operation.call(f"{loader}load_buffer", data, **_STRICT, **options)


def _open_heic(data: bytes) -> pyvips.Image:
    with BytesIO(data) as file:
        found = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
        first = found[found.primary_index]
        return with_blobs(_from_array(np.asarray(first)), first.info)


def with_blobs(image: pyvips.Image, info: Mapping[Any, Any]) -> pyvips.Image:
    """Puts what Pillow says beside a picture where libvips keeps it."""
    for name, blob in _BLOBS.items():
        if info.get(name):
            image.set_type(pyvips.GValue.blob_type, blob, info[name])
    return image


def _open_gif(data: bytes) -> pyvips.Image:
    """What the first frame does not cover is transparent, as browsers show it; libvips would paint it black."""
    image = _with_vips("gif")(data)
    left, top, width, height = gif_frame(data)
    if image.hasalpha() or (width, height) == (image.width, image.height):
        return image
    covered = (pyvips.Image.black(width, height) + 255).cast("uchar")
    return image.bandjoin(covered.embed(left, top, image.width, image.height))


def _open_bmp(data: bytes) -> pyvips.Image:
    with BmpImageFile(BytesIO(data)) as image:
        image.load()
        shown = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")
        return _from_array(np.asarray(shown))


def _from_array(samples: NDArray[Any]) -> pyvips.Image:
    return pyvips.Image.new_from_array(np.ascontiguousarray(samples)).copy()


_OPENERS: dict[SourceFormat, Callable[[bytes], pyvips.Image]] = {
    SourceFormat.PNG: _with_vips("png"),
    SourceFormat.JPEG: _with_vips("jpeg"),  # of several pictures in one file, the first
    SourceFormat.WEBP: _with_vips("webp"),
    SourceFormat.GIF: _open_gif,
    SourceFormat.TIFF: _with_vips("tiff"),
    SourceFormat.AVIF: _with_vips("heif"),
    SourceFormat.HEIC: _open_heic,
    SourceFormat.BMP: _open_bmp,
}


def _in_one_channel(image: pyvips.Image) -> pyvips.Image:
    """Of three equal channels one, unless a profile speaks of three."""
    if bytes(image.get(_BLOBS["icc_profile"]) if _has_profile(image) else b"")[16:20] == b"RGB ":
        return image
    gray = image.extract_band(0).copy(interpretation="b-w")
    return gray.bandjoin(image.extract_band(3)) if image.bands == 4 else gray


def _has_profile(image: pyvips.Image) -> bool:
    return _BLOBS["icc_profile"] in image.get_fields()


def in_space(image: pyvips.Image, space: Space) -> pyvips.Image:
    """Gives a picture the profile of what its file names, in place of any other."""
    image = image.copy()
    if _has_profile(image):
        image.remove(_BLOBS["icc_profile"])
    said = None if space == SRGB else profile(space, gray=image.bands < 3)
    if said is not None:
        image.set_type(pyvips.GValue.blob_type, _BLOBS["icc_profile"], said)
    return image


def open_picture(data: bytes, header: Header) -> pyvips.Image:
    """Opens a file; its rows are computed when they are asked for.

    Returns:
        1 to 5 bands of uchar or ushort over their whole range, straight, with `icc-profile-data`, `exif-data`
        and `xmp-data` where the file has them.

    Raises:
        Exception: whatever the decoder raises, also when rows are asked for.
    """
    image = _OPENERS[header.format](data if header.window is None else without_turns(data))
    if header.window is not None:
        image = image.crop(*header.window)
    if header.gray and image.bands >= 3:
        image = _in_one_channel(image)
    if header.space is not None:
        image = in_space(image, header.space)
    if image.format == "ushort" and 8 < header.bit_depth < 16:  # its bits have been put uppermost
        top = 2**header.bit_depth - 1
        places = image >> (16 - header.bit_depth)
        spread = (places.cast("float") * (65535 / top) + 0.5).cast("ushort")
        image = spread.copy(interpretation=image.interpretation)
    if header.weighed and image.bands in (2, 4):
        top = 65535 if image.format == "ushort" else 255
        straight = image.unpremultiply(max_alpha=top, alpha_band=image.bands - 1)
        image = straight.rint().cast(image.format).copy(interpretation=image.interpretation)
    return image
