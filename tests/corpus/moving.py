"""Files that are sent with `animated=true`: too many frames, none, cut, lying; and a few good ones."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from serve_app.testing import photo_like
from tests.corpus.case import BROKEN, OK, TOO_LARGE, Case, bad, good
from tests.corpus.originals import saved
from tests.corpus.parts import PNG_MAGIC, chunk, gif, gif_frame, ihdr, riff, vp8x, webp_chunk

_KIND = "moving"
_CONTROL = struct.Struct(">IIIIIHHBB")
_FIRST = photo_like(24, 32, 0)


def cases() -> Iterator[Case]:
    """All of them ask for all frames."""
    for case in (*_refused(), *_read()):
        yield replace(case, animated=True)


def _refused() -> Iterator[Case]:
    for count in (501, 10_000):
        yield _bad(f"gif-{count}-frames", gif(1, 1, gif_frame() * count), TOO_LARGE)
        yield _bad(f"webp-{count}-frames", _webp(count), TOO_LARGE)
        yield _bad(f"png-{count}-frames", _png(count), TOO_LARGE)
    yield _bad("gif-pixels-in-all", gif(900, 900, gif_frame(900, 900) * 5), TOO_LARGE)
    yield _bad("png-pixels-in-all", _png(5, side=900), TOO_LARGE)
    yield _bad("gif-no-frame", gif(4, 4, b""), BROKEN)
    yield bad(_KIND, "gif-pixels-missing", gif(9, 9, gif_frame(9, 9) * 2), {OK, BROKEN})
    yield _bad("gif-frame-outside", gif(4, 4, gif_frame() + gif_frame(1, 1, 4, 0)), BROKEN)
    giant = gif_frame() + gif_frame(65535, 65535)
    yield _bad("gif-giant-frame", gif(4, 4, giant), BROKEN)
    yield _bad("gif-unknown-block", gif(1, 1, gif_frame() * 2 + b"\x77\x77"), BROKEN)
    yield _bad("gif-empty-frame", gif(1, 1, gif_frame() + gif_frame(0, 0)), BROKEN)
    yield _bad("png-fewer-frames", _png(3, claimed=5), BROKEN)
    yield _bad("png-more-frames", _png(5, claimed=3), BROKEN)
    yield _bad("png-frame-outside", _png(3, at=7), BROKEN)
    yield _bad("png-giant-frame", _png(3, frame_side=2**31 - 1), BROKEN)
    for kind in ("gif", "png", "webp", "avif"):
        data = _moved(kind)
        for part in (0.3, 0.5, 0.7, 0.9):
            yield _bad(f"{kind}-cut-at-{part}", data[: int(part * len(data))], BROKEN)


def _read() -> Iterator[Case]:
    for kind, near in (("gif", 12), ("png", 0.5), ("webp", 0.5), ("avif", 12)):
        yield good(_KIND, f"{kind}-5-frames", _moved(kind), _FIRST, near)
        still = saved(Image.fromarray(_FIRST), kind, **_best(kind))
        yield good(_KIND, f"{kind}-still", still, _FIRST, near)
    pages = saved(Image.fromarray(_FIRST), "tiff", save_all=True, append_images=_photos()[1:])
    yield good(_KIND, "tiff-pages", pages, _FIRST)
    red = np.array([[[255, 0, 0]]], np.uint8)
    yield good(_KIND, "gif-500-frames", gif(1, 1, gif_frame() * 500), red)
    yield good(_KIND, "png-claims-none", _png(0, claimed=0), red)
    yield Case(_KIND, "gif-without-trailer", _moved("gif")[:-1], frozenset({OK}), (24, 32))


def _bad(name: str, data: bytes, status: int) -> Case:
    return bad(_KIND, name, data, {status})


def _photos() -> list[Image.Image]:
    return [Image.fromarray(photo_like(24, 32, seed)) for seed in range(5)]


def _best(kind: str) -> dict[str, object]:
    return {"webp": {"lossless": True}, "avif": {"quality": 95}}.get(kind, {})


def _moved(kind: str) -> bytes:
    first, *others = _photos()
    return saved(first, kind, save_all=True, append_images=others, duration=40, **_best(kind))


def _webp(count: int) -> bytes:
    dot = saved(Image.new("RGB", (8, 8), "red"), "webp", lossless=True)[12:]
    frame = webp_chunk(b"ANMF", bytes(6) + b"\7\0\0\7\0\0" + b"\x0a\0\0\0" + dot)
    return riff(vp8x(8, 8, 2), webp_chunk(b"ANIM", bytes(6)), frame * count)


def _png(
    count: int, side: int = 1, claimed: int | None = None, at: int = 0, frame_side: int = 0
) -> bytes:
    """Red; later frames lie `at` a place and are of `frame_side`, or as large as the first."""
    rows = zlib.compress((b"\0" + b"\xff\0\0" * side) * side)
    told = count if claimed is None else claimed
    body = [ihdr(side, side), chunk(b"acTL", struct.pack(">II", told, 0))]
    number = 0
    for frame in range(count):
        sides = (side, side, 0, 0) if frame == 0 else (*[frame_side or side] * 2, at, at)
        body.append(chunk(b"fcTL", _CONTROL.pack(number, *sides, 1, 10, 0, 0)))
        number += 1
        if frame == 0:
            body.append(chunk(b"IDAT", rows))
        else:
            body.append(chunk(b"fdAT", struct.pack(">I", number) + rows))
            number += 1
    if not count:
        body.append(chunk(b"IDAT", rows))
    return PNG_MAGIC + b"".join(body) + chunk(b"IEND")
