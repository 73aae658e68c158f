"""Files to pixels and back. Nothing of the source file outlives `decode` but its pixels.

A decoder is foreign code fed by strangers: whatever it raises becomes one of our errors, here and nowhere else.
The plugin classes are opened directly, not through `Image.open`, so that exactly three decoders can be
reached and Pillow's own pixel limit, a process-wide number, has no say next to ours. This module refuses to
know scaling, tiles and how results are made. Colour is taken as sRGB as it is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from serve_app.contracts import OutputFormat
from serve_app.errors import InvalidParameter, TesseraError, TooLarge
from serve_app.imaging.alpha import fill_transparent
from serve_app.imaging.containers import SourceFormat
from serve_app.imaging.inspect import FIELD, broken, inspect
from serve_app.imaging.unpack import unpack
from serve_app.resample import Pixels
from serve_app.settings import ImageLimits

_OPENERS: dict[SourceFormat, Callable[[BytesIO], ImageFile.ImageFile]] = {
    SourceFormat.PNG: PngImageFile,
    SourceFormat.JPEG: JpegImageFile,  # of several pictures in one file, the first
    SourceFormat.WEBP: WebPImageFile,
}

_LONGEST_SIDE_PX = {OutputFormat.JPEG: 65500, OutputFormat.WEBP: 16383}  # what the encoders take

# Measured on 1024 px photographs, one core. PNG: runs only (Z_RLE) 110 ms and 1155 KiB, level 1
# 92 ms and 1334, level 6 400 ms and 1177, level 9 1400 ms and 1155: the size of the slowest at the
# price of the fastest, since filtered photographs hold runs but hardly a longer repetition.
_Z_RLE = 3
# WebP: method 2 takes 50 ms, 4 (Pillow's choice) 110 for the same size, 6 220 for 2 % less.
_WEBP_METHOD = 2
# JPEG: plain 4 ms; optimised 12 ms for 1 % less, progressive 31 ms for 4 % less. From this quality up a
# caller wants the colour edges whole.
_JPEG_FULL_COLOUR_QUALITY = 90

_BAND_ROWS = 256  # rows turned to 8 bits at once; bounds the copies that a large result needs


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        colour: (H, W, 3) float32, [0, 1], sRGB, straight; extended under what is fully transparent.
        alpha: (H, W) float32, [0, 1]; None if the file has no transparency.
    """

    colour: Pixels
    alpha: Pixels | None

    @property
    def height(self) -> int:
        """Rows, px."""
        return int(self.colour.shape[0])

    @property
    def width(self) -> int:
        """Columns, px."""
        return int(self.colour.shape[1])


def decode(data: bytes, limits: ImageLimits, field: str = FIELD) -> Picture:
    """Decodes a file; of an animation, the first frame.

    Args:
        data: The whole file: PNG, JPEG or WebP by its first bytes.
        limits: What an upload may weigh; judged before anything is allocated.
        field: Its name in what errors say.

    Raises:
        InvalidParameter: no data at all.
        UnsupportedImage: not a format that is read.
        TooLarge: over a limit, or more than this machine's memory holds.
        BrokenImage: the file does not decode whole.
    """
    header = inspect(data, limits, field)
    try:
        with _OPENERS[header.format](BytesIO(data)) as image:
            stored = (header.width, header.height)
            if image.size != (stored if header.orientation < 5 else stored[::-1]):
                raise broken("it states two different sizes", header.format, field)
            image.load()
            colour, alpha = unpack(image, header)
    except TesseraError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise TooLarge(
            f"{field}: {header.width}x{header.height} px are more than can be decoded here ({error})",
            field=field,
            allowed=f"at most {limits.source_pixels} pixels",
        ) from None
    except (
        Exception
    ) as error:  # decoders raise whatever they like: OSError, SyntaxError, EOFError, ...
        raise broken(error, header.format, field) from None
    return Picture(colour if alpha is None else fill_transparent(colour, alpha), alpha)


def encode(
    colour: Pixels, alpha: Pixels | None, output_format: OutputFormat, quality: int
) -> bytes:
    """Encodes a picture with 8 bits a sample, rounded half up after a clip to [0, 1].

    Args:
        colour: (H, W, 3) float32, sRGB, straight.
        alpha: (H, W) float32, or None. JPEG has none: the picture is laid on white.
        output_format: The file format.
        quality: 1 to 100, for JPEG and WebP; PNG loses nothing and ignores it.

    Raises:
        InvalidParameter: a side is longer than the format can state; `output_format` is the field.
    """
    height, width = colour.shape[:2]
    longest = _LONGEST_SIDE_PX.get(output_format)
    if longest is not None and max(height, width) > longest:
        raise InvalidParameter(
            f"output_format: {output_format} holds at most {longest} px a side, not {width}x{height}",
            field="output_format",
            allowed="png"
            if max(height, width) > _LONGEST_SIDE_PX[OutputFormat.JPEG]
            else "png or jpeg",
        )
    image = Image.fromarray(_to_bytes(colour, alpha, flat=output_format is OutputFormat.JPEG))
    file = BytesIO()
    if output_format is OutputFormat.PNG:
        image.save(file, "PNG", compress_type=_Z_RLE)
    elif output_format is OutputFormat.WEBP:
        image.save(file, "WEBP", quality=quality, method=_WEBP_METHOD)
    else:
        subsampling = "4:4:4" if quality >= _JPEG_FULL_COLOUR_QUALITY else "4:2:0"
        image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def _to_bytes(colour: Pixels, alpha: Pixels | None, *, flat: bool) -> NDArray[np.uint8]:
    height, width = colour.shape[:2]
    channels = 3 if alpha is None or flat else 4
    samples = np.empty((height, width, channels), np.uint8)
    for top in range(0, height, _BAND_ROWS):
        rows = slice(top, top + _BAND_ROWS)
        band = np.clip(colour[rows], 0, 1)
        if alpha is not None:
            opacity = np.clip(alpha[rows], 0, 1)[:, :, None]
            if flat:
                band = band * opacity + (1 - opacity)
            else:
                samples[rows, :, 3:] = opacity * 255 + np.float32(0.5)
        samples[rows, :, :3] = band * 255 + np.float32(0.5)  # the cast cuts, so this rounds half up
    return samples
