"""Good pictures of odd shapes, and of very many frames. What is seen of an animation is its first frame."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve_app.testing import photo_like
from tests.corpus.case import EITHER, Case, good
from tests.corpus.originals import FORMATS, TOLERANCE, saved
from tests.corpus.parts import PNG_MAGIC, chunk, gif, gif_frame, ihdr, riff, vp8x, webp_chunk

_FRAMES = 10_000
_RED = np.array([[[255, 0, 0]]], np.uint8)


def cases() -> Iterator[Case]:
    """Lines, dots, a panorama; animations."""
    for height, width, kinds in (
        (1, 65_500, ("png", "jpeg")),
        (65_500, 1, ("tiff", "gif")),
    ):
        line = _line(height, width)
        for kind in kinds:
            near = TOLERANCE[kind] if kind != "gif" else 0.5
            data = saved(Image.fromarray(line), kind, **_best(kind))
            yield good("odd shape", f"{kind}-{width}x{height}", data, line, near)
    for height, width in ((1, 16_383), (16_383, 1)):
        line = _line(height, width)
        data = saved(Image.fromarray(line), "webp", lossless=True)
        yield good("odd shape", f"webp-{width}x{height}", data, line)
    for kind in FORMATS:
        dot = np.full((1, 1, 3), (200, 100, 50), np.uint8)
        data = saved(Image.fromarray(dot), kind, **_best(kind))
        yield good("odd shape", f"{kind}-1x1", data, dot, max(3, TOLERANCE[kind] / 2))
        odd = photo_like(7, 13)
        data = saved(Image.fromarray(odd), kind, **_best(kind))
        yield good("odd shape", f"{kind}-13x7", data, odd, 3 * TOLERANCE[kind])
    wide = np.repeat(np.repeat(photo_like(3, 120), 100, axis=0), 100, axis=1)
    for kind in ("png", "jpeg"):
        data = saved(Image.fromarray(wide), kind, **_best(kind))
        yield good("odd shape", f"{kind}-12000x300", data, wide, TOLERANCE[kind])
    yield from _animated()


def _best(kind: str) -> dict[str, int]:
    return {"quality": 95} if kind in ("jpeg", "webp", "avif", "heic") else {}


def _line(height: int, width: int) -> NDArray[np.uint8]:
    ramp = np.linspace(0, 255, height * width).astype(np.uint8)
    return np.repeat(ramp.reshape(height, width, 1), 3, axis=2)


def _animated() -> Iterator[Case]:
    kind, count = "animated", f"{_FRAMES}-frames"
    yield good(kind, f"gif-{count}", gif(1, 1, gif_frame() * _FRAMES), _RED)
    red = np.repeat(np.repeat(_RED, 8, axis=0), 8, axis=1)
    pixel = saved(Image.fromarray(red), "webp", lossless=True)[12:]
    frame = webp_chunk(b"ANMF", bytes(6) + b"\7\0\0\7\0\0" + b"\x0a\0\0\0" + pixel)
    webp = riff(vp8x(8, 8, 2), webp_chunk(b"ANIM", bytes(6)), frame * _FRAMES)
    yield good(kind, f"webp-{count}", webp, red)
    yield good(kind, f"apng-{count}", _apng(), _RED)
    photos = [Image.fromarray(photo_like(24, 32, seed)) for seed in range(5)]
    first = photo_like(24, 32, 0)
    for name, options in (
        ("gif", {}),
        ("webp", {"lossless": True}),
        ("png", {}),
        ("tiff", {}),
        ("avif", {"quality": 95}),
        ("heic", {}),
    ):
        data = saved(photos[0], name, save_all=True, append_images=photos[1:], **options)
        yield good(kind, f"{name}-5-frames", data, first, 2 * TOLERANCE[name])
    pages = saved(photos[0].resize((1, 1)), "tiff", save_all=True, append_images=photos[:1] * 200)
    yield Case(kind, "tiff-200-pages", pages, EITHER, (1, 1))


def _apng() -> bytes:
    row = zlib.compress(b"\0\xff\0\0")
    body = [ihdr(1, 1), chunk(b"acTL", struct.pack(">II", _FRAMES, 0))]
    control = struct.Struct(">IIIIIHHBB")
    body += [chunk(b"fcTL", control.pack(0, 1, 1, 0, 0, 1, 10, 0, 0)), chunk(b"IDAT", row)]
    for number in range(1, _FRAMES):
        body.append(chunk(b"fcTL", control.pack(2 * number - 1, 1, 1, 0, 0, 1, 10, 0, 0)))
        body.append(chunk(b"fdAT", struct.pack(">I", 2 * number) + row))
    return PNG_MAGIC + b"".join(body) + chunk(b"IEND")
