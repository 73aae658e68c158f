"""Joins frames, PNG files of one size, to one file that moves.

For PNG the frames' own chunks are kept and nothing is encoded again. WebP and AVIF are encoded through Pillow,
to which all frames look like one picture with many, of which one is decoded at a time. What the first frame
says of itself is said of the file. This module refuses to know where frames come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from PIL import Image, PngImagePlugin

from serve_app.contracts import OutputFormat
from serve_app.imaging import apng
from serve_app.imaging.frames import Frames
from serve_app.imaging.packets import contained_packet
from serve_app.imaging.provenance import SOFTWARE, as_properties
from serve_app.imaging.writers.sheet import Sheet
from serve_app.imaging.writers.whole import AvifWriter, WebpWriter
from serve_app.settings import ImageLimits

_WRITERS = {OutputFormat.WEBP: WebpWriter, OutputFormat.AVIF: AvifWriter}
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_EXIF_PREFIX = b"Exif\0\0"
_MOST_PLAYS = 65535  # WebP's


def join(
    frames: Frames,
    take: Callable[[int], bytes],
    output_format: OutputFormat,
    quality: int,
    provenance: Mapping[str, Any],
    limits: ImageLimits,
) -> bytes:
    """Joins frames.

    Args:
        frames: Which picture each frame shows, and for how long.
        take: Gives a picture's file by its number, as often as it is asked for.
        output_format: PNG, WebP or AVIF. An AVIF plays for ever.
        quality: 1 to 100, for WebP and AVIF.
        provenance: How the result was made, as `encode.Look` has it.
        limits: What reading the first frame's XMP may take.

    Returns:
        The file.

    Raises:
        Busy: no process came free to read it.
        ValueError: the frames are not of one size and kind.
    """
    file = BytesIO()
    if output_format is OutputFormat.PNG:
        files = (take(at) for at in frames.shown)
        apng.join(file, files, frames.durations_ms, frames.plays)
        return file.getvalue()
    writer = _WRITERS[output_format]
    film = _Film(frames, take)
    film.save(
        file,
        writer.kind,
        save_all=True,
        duration=list(frames.durations_ms),
        loop=min(frames.plays, _MOST_PLAYS),
        **writer.options(_sheet(film, quality, provenance, limits)),
    )
    return file.getvalue()


class _Film(Image.Image):
    """A picture of many frames, as Pillow's own plugins make one, that holds only the frame it stands at."""

    def __init__(self, frames: Frames, take: Callable[[int], bytes]) -> None:
        super().__init__()
        self._frames, self._take, self._at = frames, take, 0
        self.n_frames, self.is_animated = len(frames.shown), True
        with _opened(take(frames.shown[0])) as first:
            first.load()  # texts behind the pixels, too
            self._mode, self._size = first.mode, first.size
            self.info = dict(first.info)

    def seek(self, frame: int) -> None:
        """Stands at another frame."""
        if frame >= self.n_frames:
            raise EOFError
        if frame != self._at:
            self._at, self._im = frame, None

    def tell(self) -> int:
        """The frame that it stands at."""
        return self._at

    def load(self) -> Any:
        """Decodes the frame."""
        if self._im is None:
            with _opened(self._take(self._frames.shown[self._at])) as image:
                image.load()
                if (image.mode, image.size) != (self._mode, self._size):
                    raise ValueError("a frame is of another size or kind than the first")
                self._im = image.im
        return super().load()


def _opened(data: bytes) -> PngImagePlugin.PngImageFile:
    return PngImagePlugin.PngImageFile(BytesIO(data))


def _sheet(film: _Film, quality: int, provenance: Mapping[str, Any], limits: ImageLimits) -> Sheet:
    """What the first frame says of itself, which judged what may be said, with its own provenance."""
    info = film.info
    exif = info.get("exif")
    return Sheet(
        height=film.height,
        width=film.width,
        channels=_CHANNELS[film.mode],
        bits=8,
        quality=quality,
        icc=info.get("icc_profile"),
        exif=None if exif is None else exif.removeprefix(_EXIF_PREFIX),
        xmp=contained_packet(
            info.get("xmp"),
            film.height,
            film.width,
            keep_gps=True,
            software=SOFTWARE,
            properties=as_properties(provenance),
            limits=limits,
        ),
        record="",
        software=SOFTWARE,
    )
