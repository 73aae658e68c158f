"""Splits a moving picture into its frames, each as it is seen, composed with those before it.

A frame leaves as a PNG of its own, without loss, with the file's profile, EXIF and XMP, so that it goes through
the same door as a still picture. This runs in the process of `worker`, as `codec` does. One pass reads all
frames; one is held at a time. This module refuses to know how many there may be.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pyvips
from PIL import AvifImagePlugin

from serve_app.errors import TooLarge
from serve_app.imaging import apng
from serve_app.imaging.codec import contained, read_metadata
from serve_app.imaging.containers import SourceFormat
from serve_app.imaging.frames import Frame, duration_ms, frames_message
from serve_app.imaging.gif import read_gif_blocks
from serve_app.imaging.inspect import Header, inspect
from serve_app.imaging.motion import count_frames
from serve_app.imaging.opening import in_space, with_blobs
from serve_app.imaging.shots import Samples, bares, composed
from serve_app.imaging.wire import Message, SharedMemory
from serve_app.imaging.writers.png import PngWriter
from serve_app.imaging.writers.sheet import Sheet
from serve_app.settings import ImageLimits

_BAND_ROWS = 128
_PROFILE_OF = {1: b"GRAY", 2: b"GRAY", 3: b"RGB ", 4: b"RGB "}  # by channels
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # as for libvips: memory follows from the picture alone

_STRICT = {"access": "sequential", "fail_on": "error"}


@dataclass(frozen=True, slots=True)
class _Motion:
    """What a decoder makes of a moving file.

    Attributes:
        about: A picture of its kind that holds the file's blocks.
        count: Of frames.
        frames: Each, and its duration in ms as the file tells it.
        plays: How often all of it is shown; 0 is for ever.
    """

    about: pyvips.Image
    count: int
    frames: Iterator[tuple[Samples, int]]
    plays: int


def split(data: bytes, limits: ImageLimits, field: str, memory: SharedMemory) -> Message:
    """Splits a file of more than one frame; see `frames.Frames`.

    Args:
        data: The whole file.
        limits: What it may weigh; judged before anything is allocated.
        field: Its name in what errors say.
        memory: The frames' files are appended to it.

    Returns:
        What `frames.read_frames` reads.

    Raises:
        RequestError: as `codec.decode` does.
    """
    header = inspect(data, limits, field)
    count = count_frames(data, header, limits, field)
    with contained(header, limits, field):
        motion = _OPENERS[header.format](data)
        if motion.count != count:
            raise ValueError("it states two different numbers of frames")
        about = motion.about if header.space is None else in_space(motion.about, header.space)
        blocks = read_metadata(about, limits, field)
        if sum(len(block or b"") for block in blocks.values()) * count > limits.upload_bytes:
            raise TooLarge(
                f"{field}: its profile, EXIF and XMP are too large to go with each of {count} frames",
                field=field,
                allowed=f"{limits.upload_bytes} bytes of them in all",
            )
        gray = motion.about.bands < 3
        return frames_message(_files(motion, header, blocks), motion.plays, gray, memory)


def _files(motion: _Motion, header: Header, blocks: dict[str, bytes | None]) -> Iterator[Frame]:
    sides, known = sorted((header.height, header.width)), dict[bytes, int]()
    for samples, told_ms in motion.frames:
        if sorted(samples.shape[:2]) != sides:
            raise ValueError("it states two different sizes")
        digest = hashlib.blake2b(np.ascontiguousarray(samples).data).digest()
        picture = None if digest in known else _png(samples, blocks)
        yield Frame(duration_ms(told_ms), picture, known.setdefault(digest, len(known)))


def _png(samples: Samples, blocks: dict[str, bytes | None]) -> bytes:
    height, width, channels = samples.shape
    icc = blocks["icc"]
    fits = icc is not None and icc[16:20] == _PROFILE_OF[channels]
    sheet = Sheet(
        height=height,
        width=width,
        channels=channels,
        bits=8 * samples.dtype.itemsize,
        quality=100,
        icc=icc if fits else None,
        exif=blocks["exif"],
        xmp=blocks["xmp"],
        record="",
        software="",
    )
    file = BytesIO()
    writer = PngWriter(file, sheet)
    for top in range(0, height, _BAND_ROWS):
        writer.rows(samples[top : top + _BAND_ROWS])
    writer.end()
    return file.getvalue()


def _open_gif(data: bytes) -> _Motion:
    blocks = read_gif_blocks(data)
    channels = (1 if blocks.gray else 3) + blocks.transparent
    width, height = struct.unpack_from("<HH", data, 6)

    def read(file: bytes) -> Samples:
        image = pyvips.Image.gifload_buffer(file, **_STRICT)
        shown = image if image.hasalpha() else image.addalpha()
        samples = shown.numpy().reshape(image.height, image.width, -1)
        colour = np.broadcast_to(samples[:, :, :-1], (*samples.shape[:2], 3))
        return np.dstack([colour[:, :, : 1 if blocks.gray else 3], samples[:, :, -1]])

    frames = (
        (shown[:, :, :channels], told_ms)
        for shown, told_ms in composed(blocks.shots, height, width, read)
    )
    about = pyvips.Image.black(1, 1, bands=channels)
    return _Motion(about, len(blocks.shots), frames, blocks.plays)


def _open_webp(data: bytes) -> _Motion:
    """Its frames, composed, are one picture to libvips, one below the other."""
    image = pyvips.Image.webpload_buffer(data, n=-1, **_STRICT)
    pages = zip(_pages(image), image.get("delay"), strict=True)
    return _Motion(image, image.get("n-pages"), pages, image.get("loop"))


def _pages(image: pyvips.Image) -> Iterator[Samples]:
    height, region = image.get("page-height"), pyvips.Region.new(image)
    for top in range(0, image.height, height):
        page = np.frombuffer(region.fetch(0, top, image.width, height), np.uint8)
        yield page.reshape(height, image.width, image.bands)


def _open_png(data: bytes) -> _Motion:
    shots, plays = apng.take_apart(data)
    width, height = struct.unpack_from(">II", data, 16)
    about = pyvips.Image.pngload_buffer(data)
    bare = not about.hasalpha() and bares(shots, height, width)

    def read(file: bytes) -> Samples:
        samples = apng.read(file)
        if not bare:
            return samples
        opaque = np.full_like(samples[:, :, :1], np.iinfo(samples.dtype).max)
        return np.concatenate([samples, opaque], axis=2)

    return _Motion(about, len(shots), composed(shots, height, width, read), plays)


def _open_avif(data: bytes) -> _Motion:
    """Its frames need no composing. How often it plays, Pillow does not say."""
    image = AvifImagePlugin.AvifImageFile(BytesIO(data))
    about = with_blobs(pyvips.Image.black(1, 1, bands=len(image.getbands())), image.info)

    def frames() -> Iterator[tuple[Samples, int]]:
        for at in range(image.n_frames):
            image.seek(at)
            image.load()
            samples = np.asarray(image)
            yield samples.reshape(*samples.shape[:2], -1), image.info["duration"]

    return _Motion(about, image.n_frames, frames(), 0)


_OPENERS: dict[SourceFormat, Callable[[bytes], _Motion]] = {
    SourceFormat.GIF: _open_gif,
    SourceFormat.WEBP: _open_webp,
    SourceFormat.PNG: _open_png,
    SourceFormat.AVIF: _open_avif,
}
