"""Results to files: rows come from top to bottom, and the file grows as they come.

Here it is decided what a format holds, in which colours and depth a result is stored, and what is said about
it. PNG, TIFF and JPEG never hold more than some rows; WebP, AVIF and JPEG XL hold the whole picture, 8 bits a
sample. This module refuses to know how a result is made, and the bytes of any format: those are the writers'.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from serve_app.contracts import ColorProfile, OutputFormat
from serve_app.errors import Busy, InvalidParameter
from serve_app.imaging.formats import FORMATS, check_size, stored_bits
from serve_app.imaging.metadata import carried_exif
from serve_app.imaging.packets import contained_packet
from serve_app.imaging.profiles import Conversion
from serve_app.imaging.provenance import SOFTWARE, as_json, as_properties
from serve_app.imaging.traits import Traits
from serve_app.imaging.writers.sheet import Samples, Sheet
from serve_app.levels import Levels, Pixels, to_levels
from serve_app.settings import ImageLimits

_AT_ONCE_ROWS = 64  # turned to samples together; bounds the copies, whatever a caller brings
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_LIMITS = ImageLimits()
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # ITU-R BT.709


@dataclass(frozen=True, slots=True)
class Look:
    """How a result is written.

    Attributes:
        output_format: The file format.
        quality: 1 to 100, for JPEG, WebP, AVIF and JPEG XL.
        bit_depth: 8 or 16; None takes the source's, where the format holds it, else 8.
        color_profile: In the source's profile, or in sRGB.
        keep_metadata: Whether the source's EXIF and XMP are carried over.
        keep_gps: Whether the place is carried over with them.
        traits: What the source's file said.
        provenance: What can be written as JSON: `version`, `model`, `revision`, `seed`, `parameters`.
    """

    output_format: OutputFormat
    quality: int
    bit_depth: int | None
    color_profile: ColorProfile
    keep_metadata: bool
    keep_gps: bool
    traits: Traits
    provenance: Mapping[str, Any]


class Encoder:
    """Writes one file: rows in order, then `close`. Until then nothing stands at `path`.

    As a context it closes at its end, or aborts if that is an exception.

    Attributes:
        warnings: What of the source could not be kept, in sentences.

    Args:
        path: The file to be made; replaced if it exists.
        height: Rows of the result, px.
        width: Columns of the result, px.
        has_alpha: Whether rows come with alpha. JPEG has none: there they are laid on white.
        look: How it is written.
        limits: What following the source's profile and reading its XMP may take in memory and time.

    Raises:
        InvalidParameter: the format cannot hold it; `output_format` or `bit_depth` is the field.
        Busy: no room is left on the disk, or no process came free for the source's profile or XMP.
    """

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        has_alpha: bool,
        look: Look,
        limits: ImageLimits = _LIMITS,
    ) -> None:
        holds = FORMATS[look.output_format]
        check_size(look.output_format, height, width)
        self._bits = stored_bits(look.output_format, look.bit_depth, look.traits.bit_depth)
        self._flat = not holds.alpha
        self._alpha = has_alpha and holds.alpha
        holds_gray = holds.gray_with_alpha if self._alpha else holds.gray
        self._gray = look.traits.gray and holds_gray
        self._conversion = _conversion(look, self._gray, limits) if holds.profiles else None
        self.warnings = _warnings(look, self._conversion)
        self._width, self._left = width, height
        sheet = self._sheet(height, look, limits)
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        with _room():
            self._file = self._part.open("wb")
        try:
            with _room():
                self._writer = holds.writer(self._file, sheet)
        except BaseException:
            self.abort()
            raise

    def write(self, colour: Pixels, alpha: Pixels | None) -> None:
        """Takes the next rows; of what is outside [0, 1] the nearest end is stored.

        Args:
            colour: (n, width, 3) float32, sRGB, straight.
            alpha: (n, width) float32; None for a picture without.

        Raises:
            Busy: no room is left on the disk, or no converter came free.
            InvalidParameter: the source's profile fails after all; `color_profile` is the field.
        """
        if len(colour) > self._left or colour.shape[1:] != (self._width, 3):
            raise ValueError(f"{colour.shape} are not rows of {self._left} more x {self._width}")
        for top in range(0, len(colour), _AT_ONCE_ROWS):
            rows = slice(top, top + _AT_ONCE_ROWS)
            samples = self._samples(colour[rows], None if alpha is None else alpha[rows])
            with _room():
                self._writer.rows(samples)
        self._left -= len(colour)

    def close(self) -> None:
        """Ends the file and puts it in its place.

        Raises:
            Busy: no room is left on the disk.
            ValueError: rows are missing.
        """
        try:
            if self._left:
                raise ValueError(f"{self._left} rows are missing")
            with _room():
                self._writer.end()
                self._file.close()
                self._part.replace(self._path)
        finally:
            self.abort()

    def abort(self) -> None:
        """Gives up: leaves no file, and an older one at `path` as it was. After `close` it does nothing."""
        try:
            self._file.close()
        except OSError:
            pass  # the disk is full; the rows it still held are given up with the file
        finally:
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _sheet(self, height: int, look: Look, limits: ImageLimits) -> Sheet:
        icc = None if self._conversion is None else look.traits.icc
        kept = look.traits if look.keep_metadata else Traits()
        return Sheet(
            height=height,
            width=self._width,
            channels=(1 if self._gray else 3) + self._alpha,
            bits=self._bits,
            quality=look.quality,
            icc=icc,
            exif=carried_exif(
                kept.exif,
                height,
                self._width,
                keep_gps=look.keep_gps,
                is_srgb=icc is None,
                software=SOFTWARE,
            ),
            xmp=contained_packet(
                kept.xmp,
                height,
                self._width,
                keep_gps=look.keep_gps,
                software=SOFTWARE,
                properties=as_properties(look.provenance),
                limits=limits,
            ),
            record=as_json(dict(look.provenance)) if look.provenance else "",
            software=SOFTWARE,
        )

    def _samples(self, colour: Pixels, alpha: Pixels | None) -> Samples:
        """Turns rows to what the file stores: (n, width, channels) uint8 or uint16."""
        band = np.clip(colour, 0, 1)
        opacity = None if alpha is None else np.clip(alpha, 0, 1)[:, :, None]
        if opacity is not None and self._flat:
            band = band * opacity + (1 - opacity)
        if self._gray:
            band = (band @ _LUMA)[:, :, None]
        if self._conversion is None:
            stored = _rounded(band, self._bits)
        else:
            through = self._conversion(to_levels(np.broadcast_to(band, (*band.shape[:2], 3))))
            stored = through if self._bits == 16 else _to_8_bits(through)
        if not self._alpha or opacity is None:
            return stored
        return np.concatenate([stored, _rounded(opacity, self._bits)], axis=2)


def encode(colour: Pixels, alpha: Pixels | None, look: Look) -> bytes:
    """Encodes a whole picture in memory.

    Args:
        colour: (H, W, 3) float32, sRGB, straight.
        alpha: (H, W) float32, or None.
        look: How it is written.

    Raises:
        InvalidParameter: the format cannot hold it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result"
        height, width = colour.shape[:2]
        with Encoder(path, height, width, alpha is not None, look) as encoder:
            encoder.write(colour, alpha)
        return path.read_bytes()


@contextmanager
def _room() -> Iterator[None]:
    """Within it a full disk is `Busy`: what fills it is mostly other results, which go when they are sent."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise Busy("no room is left on the disk that results are written to") from None


def _rounded(pixels: Pixels, bits: int) -> Samples:
    """Rounds half up: the cast cuts."""
    kind, top = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
    stored: Samples = (pixels * np.float32(top) + np.float32(0.5)).astype(kind)
    return stored


def _to_8_bits(levels: Levels) -> Samples:
    stored: Samples = ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return stored


def _conversion(look: Look, gray: bool, limits: ImageLimits) -> Conversion | None:
    """To the source's profile, if it is asked for, there is one, and results can be written to it."""
    if look.color_profile is not ColorProfile.SOURCE or look.traits.icc is None:
        return None
    try:
        return Conversion(look.traits.icc, gray=gray, limits=limits)
    except (ValueError, InvalidParameter):
        return None


def _warnings(look: Look, conversion: Conversion | None) -> tuple[str, ...]:
    kept = look.traits.icc is None or conversion is not None
    if kept or look.color_profile is not ColorProfile.SOURCE:
        return ()
    return ("the source's colour profile could not be written to; the result is in sRGB",)
