"""Files to pixels: a decoder's work, judged and made uniform. It runs in the process of `worker`.

A decoder is foreign code fed by strangers: whatever it raises becomes one of our errors, here and nowhere else.
This module refuses to know scaling, tiles and how results are made, and which library opens which format.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyvips

from serve_app.errors import TesseraError, TooLarge
from serve_app.imaging.alpha import fill_levels
from serve_app.imaging.containers import SourceFormat
from serve_app.imaging.inspect import FIELD, Header, broken, inspect
from serve_app.imaging.metadata import exif_of_tiff
from serve_app.imaging.opening import open_picture
from serve_app.imaging.traits import Traits
from serve_app.imaging.unpack import Allocate, draw
from serve_app.levels import Levels
from serve_app.settings import ImageLimits

_METADATA = {"icc": "icc-profile-data", "exif": "exif-data", "xmp": "xmp-data"}
_EXIF_PREFIX = b"Exif\0\0"


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        colour: (H, W, 3) levels, sRGB, straight; extended under what is fully transparent.
        alpha: (H, W) levels; None if the file has no transparency.
        traits: What else the file says.
    """

    colour: Levels
    alpha: Levels | None
    traits: Traits

    @property
    def height(self) -> int:
        """Rows, px."""
        return int(self.colour.shape[0])

    @property
    def width(self) -> int:
        """Columns, px."""
        return int(self.colour.shape[1])


def _allocate(shape: tuple[int, ...]) -> Levels:
    return np.empty(shape, np.uint16)


def decode(
    data: bytes, limits: ImageLimits, field: str = FIELD, allocate: Allocate = _allocate
) -> Picture:
    """Decodes a file; of an animation, the first frame.

    Args:
        data: The whole file, of `inspect.ALLOWED_FORMATS` by its first bytes.
        limits: What an upload may weigh; judged before anything is allocated.
        field: Its name in what errors say.
        allocate: Makes the arrays of the result, by their shape.

    Raises:
        InvalidParameter: no data at all.
        UnsupportedImage: not a format that is read, or of a kind of it that is not.
        TooLarge: over a limit, or more than this process's memory holds.
        BrokenImage: the file does not decode whole.
    """
    header = inspect(data, limits, field)
    with contained(header, limits, field):
        image = open_picture(data, header)
        _compare(image, header, field)
        metadata = read_metadata(image, limits, field)
        if header.format is SourceFormat.TIFF:
            metadata["exif"] = exif_of_tiff(data)
        gray = image.bands < 3
        colour, alpha, metadata["icc"] = draw(image, header, allocate)
        if alpha is not None:
            fill_levels(colour, alpha)
    return Picture(colour, alpha, Traits(gray, 16 if header.bit_depth > 8 else 8, **metadata))


@contextmanager
def contained(header: Header, limits: ImageLimits, field: str) -> Iterator[None]:
    """Within it a decoder may raise what it likes: `TooLarge` or `BrokenImage` comes out."""
    try:
        yield
    except TesseraError:
        raise
    except Exception as error:  # decoders raise whatever they like: pyvips.Error, OSError, ...
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise TooLarge(
                f"{field}: {header.width}x{header.height} px of {header.format.upper()} need more memory"
                f" than the {limits.decode_memory_bytes} bytes that a decoder has",
                field=field,
                allowed=f"at most {limits.source_pixels} pixels",
            ) from None
        raise broken(_words(error), header.format, field) from None


def _compare(image: pyvips.Image, header: Header, field: str) -> None:
    """A decoder that sees another size than we judged is not to be trusted with either."""
    stored = (header.width, header.height)
    seen = stored if header.orientation < 5 else stored[::-1]
    if (image.width, image.height) != seen:
        raise broken("it states two different sizes", header.format, field)


def read_metadata(image: pyvips.Image, limits: ImageLimits, field: str) -> dict[str, bytes | None]:
    """The blocks that a file holds beside its pixels, by `icc`, `exif` and `xmp`; TooLarge over the limit."""
    found: dict[str, bytes | None] = dict.fromkeys(_METADATA)
    present = image.get_fields()
    for name, blob in _METADATA.items():
        if blob not in present:
            continue
        data = bytes(image.get(blob))
        if len(data) > limits.metadata_bytes:
            raise TooLarge(
                f"{field}: its {name} block of {len(data)} bytes is over the limit",
                field=field,
                allowed=f"at most {limits.metadata_bytes} bytes of {name}",
            )
        found[name] = data.removeprefix(_EXIF_PREFIX) or None
    return found


def _words(error: Exception) -> str:
    """A decoder's own words on one line, cut to what fits a message."""
    text = str(error.detail if isinstance(error, pyvips.Error) else error)
    return " ".join(text.split())[:200]
