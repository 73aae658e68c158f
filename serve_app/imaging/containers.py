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

from serve_app.imaging.spaces import HIGH_RANGES, Space, of_png

# Chunks or segments of a file. A bound on time, for us and for the decoder after us: 64 MiB hold five
# million empty chunks, while a photograph of that size has about 8,000.
_MOST_PARTS = 50_000
_TOO_MANY_PARTS = f"it is in more than {_MOST_PARTS} parts"
_ORIENTATION_TAG = 0x0112
_LONG = 4  # a kind of number in EXIF; the standard wants SHORT here
_EXIF_PREFIX = b"Exif\0\0"
_PNG_COLOURS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_MOST_BRANDS_BYTES = 256
_LONGEST_COLOUR = 33  # one more than the longest of those that are read; a profile is the decoder's
_BMP_MASKED = 3
_BMP_MASKS = ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F))
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


# The still pictures among the major brands. Two of them say only "a picture": then a compatible brand may say
# that it is coded as AVIF.
_BRANDS = {
    b"avif": SourceFormat.AVIF,
    b"avis": SourceFormat.AVIF,
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), SourceFormat.HEIC),
    b"mif1": SourceFormat.HEIC,
    b"msf1": SourceFormat.HEIC,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says: its stored size in px, EXIF orientation 1 to 8, transparency, bits of a sample.

    `weighed` means that its colour is stored premultiplied by alpha, which its decoder leaves so. `space` is
    what it names by numbers and what counts more than a profile in it; None where it names none. `gray` means
    that it has one channel of colour, whatever its decoder makes of it. `claimed_pixels` are the most that any
    part of it claims to have, where that may be more than is seen. `window` is left, top, width and height of
    what is seen of the stored picture, px, where its decoder shall neither crop nor turn it.
    """

    height: int
    width: int
    orientation: int
    has_alpha: bool
    bit_depth: int
    weighed: bool = False
    space: Space | None = None
    gray: bool = False
    claimed_pixels: int = 0
    window: tuple[int, int, int, int] | None = None


class NotRead(ValueError):
    """A well-formed file of a kind that is not read; says which."""


def recognise(data: bytes) -> SourceFormat | None:
    """Tells the format by the first bytes, 16 mostly, or None; names and media types are not asked."""
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
        if data[8:12] in (b"mif1", b"msf1") and _is_avif(data):
            return SourceFormat.AVIF
        return _BRANDS.get(data[8:12])
    return None


def _is_avif(data: bytes) -> bool:
    """Whether a file of any pictures names AVIF among its compatible brands."""
    end = min(int.from_bytes(data[:4]), _MOST_BRANDS_BYTES)
    return b"avif" in (data[at : at + 4] for at in range(16, end, 4))


def read_png(data: bytes) -> Facts:
    """Reads IHDR, tRNS, eXIf and what names colours. Source: the PNG specification, third edition, 5 and 11."""
    length, kind, width, height, depth, colour_type = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13 or len(data) < 33:
        raise ValueError("its first chunk is not a whole IHDR")
    has_alpha, orientation, before_pixels = colour_type in (4, 6), 1, True
    colours: dict[bytes, bytes] = {}
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
        elif kind in _PNG_COLOURS and before_pixels:
            colours.setdefault(kind, data[at + 8 : at + 8 + min(length, _LONGEST_COLOUR)])
        at += length + 12
    else:
        raise ValueError(_TOO_MANY_PARTS)
    _refuse_high_range(colours.get(b"cICP", b""))
    return Facts(height, width, orientation, has_alpha, depth, space=of_png(colours))


def _refuse_high_range(cicp: bytes) -> None:
    if len(cicp) == 4 and cicp[1] in HIGH_RANGES:
        raise NotRead(f"a picture of high dynamic range ({HIGH_RANGES[cicp[1]]})")
    if len(cicp) == 4 and not cicp[3]:
        raise NotRead("a PNG of narrow range")


def read_jpeg(data: bytes) -> Facts:
    """Reads the first frame header and the EXIF segment. Source: ITU-T T.81, annex B."""
    orientation, frame, at = None, None, 2
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
        elif marker == 0xE1 and orientation is None and data.startswith(_EXIF_PREFIX, at + 2):
            orientation = orientation_of(data[at + 2 : at + length])
        at += length
    else:
        raise ValueError(_TOO_MANY_PARTS)
    if frame is None:
        raise ValueError("it has no frame header")
    return Facts(frame.height, frame.width, orientation or 1, False, frame.bit_depth)


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


def gif_frame(data: bytes) -> tuple[int, int, int, int]:
    """Left, top, width and height of a GIF's first frame, px. Source: GIF89a, sections 18 to 20 and 23."""
    at = 13 + _table_bytes(data[10])
    for _ in range(_MOST_PARTS):
        kind = data[at]
        if kind == 0x2C:
            return struct.unpack_from("<HHHH", data, at + 1)
        if kind != 0x21:
            raise ValueError("it has no frame")
        at += 2
        while data[at]:  # a block's length, and then the block
            at += 1 + data[at]
        at += 1
    raise ValueError(_TOO_MANY_PARTS)


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def read_bmp(data: bytes) -> Facts:
    """Reads the DIB header. Source: Microsoft, BITMAPINFOHEADER and BITMAPV5HEADER."""
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    if width < 0:
        raise ValueError(f"its width is {width}")
    if size >= 40 and bits == 16 and struct.unpack_from("<I", data, 30) == (_BMP_MASKED,):
        masks = struct.unpack_from("<III", data, 54)
        if masks not in _BMP_MASKS:
            raise NotRead("a BMP of 16 bits with masks other than 5, 5, 5 and 5, 6, 5")
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
            at = directory + 2 + 12 * entry
            tag, kind = struct.unpack_from(order + "HH", tiff, at)
            if tag == _ORIENTATION_TAG:
                (value,) = struct.unpack_from(order + ("I" if kind == _LONG else "H"), tiff, at + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
