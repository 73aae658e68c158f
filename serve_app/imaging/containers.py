"""Reads what files of each format say about themselves, by their bytes: PNG, JPEG, WebP, BMP, GIF.

No decoder runs here: a file's size must be known before anything is allocated for it, and some decoders
allocate as soon as they open a file. This module refuses to know limits and pixels. A file that ends too
early raises `struct.error` or `IndexError`, one that makes no sense `ValueError`; `inspect` turns them all
into our own error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

# Chunks or segments of a file. A bound on time, for us and for the decoder after us: 64 MiB hold five
# million empty chunks, while a photograph of that size has about 8,000.
_MOST_PARTS = 50_000
_TOO_MANY_PARTS = f"it is in more than {_MOST_PARTS} parts"
_ORIENTATION_TAG = 0x0112
_EXIF_PREFIX = b"Exif\0\0"
_BMP_HEADERS = [struct.pack("<H", size) for size in (12, 40, 52, 56, 64, 108, 124)]


class SourceFormat(StrEnum):
    """The file formats that are read."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    AVIF = "avif"
    HEIC = "heic"
    TIFF = "tiff"
    BMP = "bmp"
    GIF = "gif"


# The still pictures among the major brands; a file's compatible brands are not asked.
_BRANDS = {
    b"avif": SourceFormat.AVIF,
    b"avis": SourceFormat.AVIF,
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), SourceFormat.HEIC),
    b"mif1": SourceFormat.HEIC,
    b"msf1": SourceFormat.HEIC,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says: its stored size in px, EXIF orientation 1 to 8, transparency, bits of a sample."""

    height: int
    width: int
    orientation: int
    has_alpha: bool
    bit_depth: int


def recognise(data: bytes) -> SourceFormat | None:
    """Tells the format by the first 16 bytes, or None; names and media types are not asked."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return SourceFormat.PNG
    if data.startswith(b"\xff\xd8\xff"):
        return SourceFormat.JPEG
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return SourceFormat.WEBP
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return SourceFormat.TIFF
    if data.startswith((b"GIF87a", b"GIF89a")):
        return SourceFormat.GIF
    if data.startswith(b"BM") and data[14:16] in _BMP_HEADERS:
        return SourceFormat.BMP
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return None


def read_png(data: bytes) -> Facts:
    """Reads IHDR, tRNS and eXIf. Source: the PNG specification, third edition, chapters 5 and 11."""
    length, kind, width, height, depth, colour_type = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13 or len(data) < 33:
        raise ValueError("its first chunk is not a whole IHDR")
    has_alpha, orientation, before_pixels = colour_type in (4, 6), 1, True
    at = 33
    for _ in range(_MOST_PARTS):
        if at + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"tRNS" and before_pixels:
            has_alpha = True
        elif kind == b"eXIf":
            orientation = orientation_of(data[at + 8 : at + 8 + length])
        elif kind == b"IDAT":
            before_pixels = False
        at += length + 12
    else:
        raise ValueError(_TOO_MANY_PARTS)
    return Facts(height, width, orientation, has_alpha, depth)


def read_jpeg(data: bytes) -> Facts:
    """Reads the first frame header and the EXIF segment. Source: ITU-T T.81, annex B."""
    orientation, frame, at = 1, None, 2
    for _ in range(_MOST_PARTS):
        at = data.find(b"\xff", at) + 1
        if at == 0:
            raise IndexError
        marker = data[at]
        if marker in (0xD9, 0xDA):  # the end, or the pixels begin
            break
        if marker == 0xFF:  # padding
            continue
        at += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # these stand alone
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and frame is None:
            depth, height, width = struct.unpack_from(">BHH", data, at + 2)
            frame = Facts(height, width, 1, False, depth)
        elif marker == 0xE1 and data.startswith(_EXIF_PREFIX, at + 2):
            orientation = orientation_of(data[at + 2 : at + length])
        at += length
    else:
        raise ValueError(_TOO_MANY_PARTS)
    if frame is None:
        raise ValueError("it has no frame header")
    return Facts(frame.height, frame.width, orientation, False, frame.bit_depth)


def read_webp(data: bytes) -> Facts:
    """Reads the canvas, the alpha flag and the EXIF chunk. Source: RFC 9649, section 2."""
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return Facts(height & 0x3FFF, width & 0x3FFF, 1, False, 8)
    if kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        return Facts((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 1, bool(bits >> 28 & 1), 8)
    if kind != b"VP8X" or len(data) < 30:
        raise ValueError("its first chunk is none of VP8, VP8L and VP8X")
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    orientation, at = 1, 30
    for _ in range(_MOST_PARTS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            orientation = orientation_of(data[at + 8 : at + 8 + length])
            break
        at += 8 + length + length % 2
    else:
        raise ValueError(_TOO_MANY_PARTS)
    return Facts(height, width, orientation, bool(data[20] & 0x10), 8)


def read_gif(data: bytes) -> Facts:
    """Reads the logical screen; it may turn out to be opaque. Source: GIF89a, section 18."""
    width, height = struct.unpack_from("<HH", data, 6)
    return Facts(height, width, 1, True, 8)


def read_bmp(data: bytes) -> Facts:
    """Reads the DIB header. Source: Microsoft, BITMAPINFOHEADER and BITMAPV5HEADER."""
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    if width < 0:
        raise ValueError(f"its width is {width}")
    return Facts(abs(height), width, 1, bits == 32, 8)


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8, from a block of EXIF; 1 if it is absent or makes no sense."""
    tiff = exif.removeprefix(_EXIF_PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
