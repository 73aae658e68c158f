"""Good pictures whose pixels are stored in a rare way: gray, ink, palettes, 1 to 32 bits, turned."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.corpus.case import BROKEN, EITHER, OK, UNSUPPORTED, Case, bad, good
from tests.corpus.originals import PHOTO, TOLERANCE, saved
from tests.corpus.parts import chunk, ihdr, picture_entries, png, tiff

_KIND = "rare layout"
_RGB = Image.fromarray(PHOTO)
_GRAY = np.asarray(_RGB.convert("L"))
_ALPHA = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
_RGBA = np.dstack([PHOTO, _ALPHA])
_LIGHT = PHOTO / 255


def cases() -> Iterator[Case]:
    """PNG, JPEG, WebP, TIFF, BMP, GIF; then every orientation."""
    yield from _png()
    yield from _jpeg()
    yield from _tiff()
    yield from _others()
    yield from _turned()


def _png() -> Iterator[Case]:
    yield _good("png-gray", saved(Image.fromarray(_GRAY), "png"), _rgb(_GRAY))
    yield _good("png-gray-alpha", _saved_la(), np.dstack([_rgb(_GRAY), _ALPHA]))
    yield _good("png-rgba", saved(Image.fromarray(_RGBA), "png"), _RGBA)
    bits = np.where(_GRAY > 128, 255, 0).astype(np.uint8)
    yield _good("png-1-bit", saved(Image.fromarray(bits).convert("1", dither=0), "png"), _rgb(bits))
    palette = _RGB.quantize(16)
    yield _good("png-palette", saved(palette, "png"), np.asarray(palette.convert("RGB")))
    clear = saved(palette, "png", transparency=bytes(range(0, 256, 17)))
    shown = np.asarray(Image.open(io.BytesIO(clear)).convert("RGBA"))
    yield _good("png-palette-transparent", clear, shown)
    key = tuple(int(value) for value in PHOTO[5, 5])
    unlike = np.where((PHOTO[5, 5] == PHOTO).all(axis=2), 0, 255).astype(np.uint8)
    keyed = saved(_RGB, "png", transparency=key)
    yield _good("png-one-colour-transparent", keyed, np.dstack([PHOTO, unlike]))
    samples = _GRAY.astype(np.uint16) * 257
    yield _good("png-gray-16-bit", saved(Image.fromarray(samples), "png"), _rgb(_GRAY))
    deep = [b"\0" + row.astype(">u2").tobytes() for row in _RGBA.astype(np.uint16) * 257]
    data = png(ihdr(64, 48, 16, 6), zlib.compress(b"".join(deep)))
    yield _good("png-rgba-16-bit", data, _RGBA)
    deep = [b"\0" + row.astype(">u2").tobytes() for row in PHOTO.astype(np.uint16) * 257]
    data = png(ihdr(64, 48, 16, 2), zlib.compress(b"".join(deep)))
    yield _good("png-rgb-16-bit", data, PHOTO)
    for depth in (2, 4):
        top = 2**depth - 1
        level = _GRAY.astype(int) * top // 255
        packed = _packed(level, depth)
        data = png(ihdr(64, 48, depth, 0), zlib.compress(packed))
        yield _good(f"png-gray-{depth}-bit", data, _rgb((level * 255 // top).astype(np.uint8)))
    yield _good("png-interlaced", png(ihdr(64, 48, 8, 2, 1), zlib.compress(_adam7())), PHOTO)
    gamma = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"sRGB", b"\0")
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PHOTO))
    yield _good("png-gamma-and-srgb", png(ihdr(64, 48), rows, gamma), PHOTO)
    light = chunk(b"gAMA", struct.pack(">I", 100_000))
    shown = np.where(_LIGHT <= 0.0031308, _LIGHT * 12.92, 1.055 * _LIGHT ** (1 / 2.4) - 0.055)
    data = png(ihdr(64, 48), rows, light)
    yield _good("png-linear", data, np.rint(shown * 255).astype(np.uint8))
    wide = png(ihdr(64, 48), rows, chunk(b"cICP", bytes([12, 13, 0, 1])) + light)
    yield Case(_KIND, "png-display-p3", wide, frozenset({OK}), (48, 64), PHOTO, 12)
    for name, numbers in (("pq", [9, 16, 0, 1]), ("hlg", [9, 18, 0, 1]), ("narrow", [1, 13, 0, 0])):
        data = png(ihdr(64, 48), rows, chunk(b"cICP", bytes(numbers)))
        yield bad(_KIND, f"png-{name}", data, {UNSUPPORTED})


def _jpeg() -> Iterator[Case]:
    near = TOLERANCE["jpeg"]
    for name, options in (
        ("progressive", {"progressive": True}),
        ("restarts", {"restart_marker_blocks": 1}),
        ("4-2-0", {"subsampling": "4:2:0"}),
        ("rgb-stored", {"keep_rgb": True}),
    ):
        yield _good(f"jpeg-{name}", saved(_RGB, "jpeg", quality=95, **options), PHOTO, near)
    yield _good("jpeg-gray", saved(Image.fromarray(_GRAY), "jpeg", quality=95), _rgb(_GRAY), near)
    # Ink without a profile: nobody can say which colour it is; it must come near the naive one.
    ink = saved(_RGB.convert("CMYK"), "jpeg", quality=95)
    yield _good("jpeg-cmyk-without-profile", ink, PHOTO, 40)


def _tiff() -> Iterator[Case]:
    for name, options in (
        ("lzw", {"compression": "tiff_lzw"}),
        ("deflate", {"compression": "tiff_adobe_deflate"}),
        ("packbits", {"compression": "packbits"}),
    ):
        yield _good(f"tiff-{name}", saved(_RGB, "tiff", **options), PHOTO)
    yield _good("tiff-rgba", saved(Image.fromarray(_RGBA), "tiff"), _RGBA)
    yield _good("tiff-gray", saved(Image.fromarray(_GRAY), "tiff"), _rgb(_GRAY))
    palette = _RGB.quantize(16)
    yield _good("tiff-palette", saved(palette, "tiff"), np.asarray(palette.convert("RGB")))
    bits = np.where(_GRAY > 128, 255, 0).astype(np.uint8)
    image = Image.fromarray(bits).convert("1", dither=0)
    yield _good("tiff-1-bit-fax", saved(image, "tiff", compression="group4"), _rgb(bits))
    deep = PHOTO.astype(np.uint16) * 257
    yield _good("tiff-16-bit", _tiff_of(deep, photometric="rgb"), PHOTO)
    yield _good("tiff-16-bit-gray", _tiff_of(_GRAY.astype(np.uint16) * 257), _rgb(_GRAY))
    yield _good("tiff-16-bit-big-endian", _tiff_of(deep, photometric="rgb", byteorder=">"), PHOTO)
    planes = np.ascontiguousarray(deep.transpose(2, 0, 1))
    data = _tiff_of(planes, photometric="rgb", planarconfig="separate")
    yield _good("tiff-16-bit-planes", data, PHOTO)
    yield _good("tiff-tiles", _tiff_of(PHOTO, photometric="rgb", tile=(16, 16)), PHOTO)
    yield _good("bigtiff", _tiff_of(PHOTO, photometric="rgb", bigtiff=True), PHOTO)
    white = tiff(picture_entries(48, 64, bits=(8,), photometric=0), (255 - _GRAY).tobytes())
    yield _good("tiff-white-is-zero", white, _rgb(_GRAY))
    # Floats have no stated range: a result, or a refusal that says so.
    either = {OK, UNSUPPORTED, BROKEN}
    for name, samples in (
        ("32-bit-float", PHOTO.astype(np.float32) / 255),
        ("64-bit-float", PHOTO.astype(np.float64) / 255),
        ("16-bit-float", PHOTO.astype(np.float16) / 255),
        ("32-bit-float-not-numbers", np.full((48, 64, 3), np.nan, np.float32)),
        ("32-bit-float-infinite", np.full((48, 64, 3), np.inf, np.float32)),
        ("32-bit-integer", PHOTO.astype(np.uint32) << 24),
        ("8-bit-signed", (PHOTO // 2).astype(np.int8)),
    ):
        yield bad(_KIND, f"tiff-{name}", _tiff_of(samples, photometric="rgb"), either)
    ycbcr = saved(_RGB.convert("YCbCr"), "tiff")
    yield bad(_KIND, "tiff-ycbcr", ycbcr, {UNSUPPORTED})
    near = TOLERANCE["jpeg"]
    yield _good("tiff-jpeg", saved(_RGB, "tiff", compression="jpeg", quality=95), PHOTO, near)
    yield bad(_KIND, "tiff-zstd", saved(_RGB, "tiff", compression="zstd"), {UNSUPPORTED})
    yield bad(_KIND, "tiff-cmyk", saved(_RGB.convert("CMYK"), "tiff"), EITHER)
    yield bad(_KIND, "tiff-32-bit-float-gray", _tiff_of(_GRAY.astype(np.float32) / 255), either)
    five = np.zeros((48, 64, 5), np.uint8)
    data = _tiff_of(five, photometric="rgb", planarconfig="contig", extrasamples=["unassalpha"] * 2)
    yield bad(_KIND, "tiff-5-samples", data, EITHER)


def _others() -> Iterator[Case]:
    yield _good("webp-lossless", saved(_RGB, "webp", lossless=True), PHOTO)
    data = saved(Image.fromarray(_RGBA), "webp", lossless=True, exact=True)
    yield _good("webp-rgba", data, _RGBA)
    for kind in ("avif", "heic"):
        near = TOLERANCE[kind]
        yield _good(f"{kind}-rgba", saved(Image.fromarray(_RGBA), kind, quality=95), _RGBA, near)
        gray = saved(Image.fromarray(_GRAY), kind, quality=95)
        yield _good(f"{kind}-gray", gray, _rgb(_GRAY), near)
    palette = _RGB.quantize(16)
    yield _good("bmp-palette", saved(palette, "bmp"), np.asarray(palette.convert("RGB")))
    yield _good("bmp-gray", saved(Image.fromarray(_GRAY), "bmp"), _rgb(_GRAY))
    whole = saved(_RGB, "bmp")
    data = whole[:22] + struct.pack("<i", -48) + whole[26:]
    yield _good("bmp-top-down", data, PHOTO[::-1])
    clear = saved(palette, "gif", transparency=3)
    shown = np.asarray(Image.open(io.BytesIO(clear)).convert("RGBA"))
    yield _good("gif-transparent", clear, shown)
    yield _good(
        "gif-interlaced", saved(palette, "gif", interlace=1), np.asarray(palette.convert("RGB"))
    )


def _turned() -> Iterator[Case]:
    turns = {
        2: PHOTO[:, ::-1],
        3: PHOTO[::-1, ::-1],
        4: PHOTO[::-1],
        5: PHOTO.swapaxes(0, 1),
        6: PHOTO.swapaxes(0, 1)[:, ::-1],
        7: PHOTO.swapaxes(0, 1)[::-1, ::-1],
        8: PHOTO.swapaxes(0, 1)[::-1],
    }
    for orientation, seen in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        kinds = ("jpeg", "tiff") if orientation != 6 else ("jpeg", "tiff", "png", "webp")
        for kind in kinds:
            options = {"quality": 95} if kind in ("jpeg", "webp") else {}
            data = saved(_RGB, kind, exif=exif, **options)
            yield _good(f"{kind}-orientation-{orientation}", data, seen, TOLERANCE[kind])


def _good(name: str, data: bytes, picture: NDArray[np.uint8], tolerance: float = 0.6) -> Case:
    return good(_KIND, name, data, picture, tolerance)


def _rgb(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(gray[:, :, None], 3, axis=2)


def _saved_la() -> bytes:
    return saved(Image.merge("LA", [Image.fromarray(_GRAY), Image.fromarray(_ALPHA)]), "png")


def _packed(levels: NDArray[np.int_], depth: int) -> bytes:
    """Rows of samples of `depth` bits, each behind a filter byte."""
    bits = (levels[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(len(levels), -1).astype(np.uint8), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def _adam7() -> bytes:
    """`PHOTO` in the seven passes of an interlaced PNG."""
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    return b"".join(
        b"\0" + row.tobytes()
        for top, left, down, across in passes
        for row in PHOTO[top::down, left::across]
    )


def _tiff_of(samples: NDArray[np.generic], **options: object) -> bytes:
    file = io.BytesIO()
    chosen = {"photometric": "minisblack", "metadata": None, **options}
    layout = {name: chosen.pop(name) for name in ("byteorder", "bigtiff") if name in chosen}
    with tifffile.TiffWriter(file, **layout) as writer:
        writer.write(samples, **chosen)
    return file.getvalue()
