"""Files that move, made by hand: frames that cover a part, and each way to leave what they drew.

A frame is written as rows of letters: r, g, b, w(hite) and . for transparent.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from tests.unit.imaging.pictures import chunk, saved

COLOURS = {
    ".": (0, 0, 0, 0),
    "r": (255, 0, 0, 255),
    "g": (0, 255, 0, 255),
    "b": (0, 0, 255, 255),
    "w": (255, 255, 255, 255),
}
KEEP, CLEAR, PREVIOUS = range(3)


@dataclass(frozen=True)
class Part:
    """A frame as it is stored: where, what, what becomes of it, for how long."""

    left: int
    top: int
    rows: str
    disposal: int = KEEP
    duration_ms: int = 50
    over: bool = True

    @property
    def letters(self) -> list[str]:
        return self.rows.split()

    @property
    def pixels(self) -> np.ndarray:
        return np.array([[COLOURS[c] for c in row] for row in self.letters], np.uint8)


STORY = [
    Part(1, 1, "rrr rrr rrr", KEEP, 30),
    Part(2, 2, "ggg g.g ggg", CLEAR, 70),
    Part(0, 0, "bb bb", PREVIOUS, 40),
    Part(0, 4, "ww", KEEP, 500),
    Part(4, 0, "g", CLEAR, 60),
]
"""On a canvas of 6 x 5."""
SHOWN = [
    "...... .rrr.. .rrr.. .rrr.. ......",
    "...... .rrr.. .rggg. .rgrg. ..ggg.",
    "bb.... bbrr.. .r.... .r.... ......",
    "...... .rrr.. .r.... .r.... ww....",
    "....g. .rrr.. .r.... .r.... ww....",
]
"""What is seen of it."""
DURATIONS_MS = (30, 70, 40, 500, 60)


def letters(picture: np.ndarray) -> str:
    """An RGBA picture in letters."""
    known = {value: letter for letter, value in COLOURS.items()}
    return " ".join(
        "".join("." if p[3] == 0 else known[tuple(int(v) for v in p)] for p in row)
        for row in picture
    )


def gif(parts: list[Part], width: int = 6, height: int = 5, loop: int | None = None) -> bytes:
    """A GIF; `loop` is what its Netscape extension says."""
    table = b"".join(bytes(COLOURS[c][:3]) for c in "rgbw") + bytes(12)
    data = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x82, 0, 0) + table
    if loop is not None:
        data += b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", loop) + b"\0"
    for part in parts:
        data += _gif_frame(part)
    return data + b";"


def _gif_frame(part: Part) -> bytes:
    indices = np.array([["rgbw.".index(c) for c in row] for row in part.letters], np.uint8)
    height, width = indices.shape
    image = Image.fromarray(indices, "P")
    image.putpalette(bytes(range(24)))
    stored = saved(image, "GIF", optimize=False)
    at = stored.rindex(struct.pack("<BHHHH", 0x2C, 0, 0, width, height))
    own = 3 << (stored[at + 9] & 7) + 1 if stored[at + 9] & 0x80 else 0
    disposal = {KEEP: 1, CLEAR: 2, PREVIOUS: 3}[part.disposal]
    seen_through = "." in part.rows
    control = bytes([0x21, 0xF9, 4, disposal << 2 | seen_through])
    control += struct.pack("<HBB", part.duration_ms // 10, 4, 0)
    place = struct.pack("<BHHHHB", 0x2C, part.left, part.top, width, height, 0)
    return control + place + stored[at + 10 + own : -1]


def apng(
    parts: list[Part],
    width: int = 6,
    height: int = 5,
    plays: int = 0,
    before: bytes = b"",
    hidden: bool = False,
    opaque: bool = False,
) -> bytes:
    """A PNG that moves; where its default picture is `hidden`, it is no frame. `opaque` holds no alpha."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if opaque else 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before
    data += chunk(b"acTL", struct.pack(">II", len(parts), plays))
    if hidden:
        data += chunk(b"IDAT", zlib.compress((b"\0" + b"\x80" * 4 * width) * height))
    number = 0
    for at, part in enumerate(parts):
        rows = part.pixels
        left, top = part.left, part.top
        if at == 0 and not hidden:  # the default picture covers the canvas
            whole = np.zeros((height, width, 4), np.uint8)
            whole[top : top + rows.shape[0], left : left + rows.shape[1]] = rows
            rows, left, top = whole, 0, 0
        rows = rows[:, :, : 3 if opaque else 4]
        packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        place = (rows.shape[1], rows.shape[0], left, top, part.duration_ms, 1000)
        control = struct.pack(">IIIIIHHBB", number, *place, part.disposal, part.over)
        data += chunk(b"fcTL", control)
        number += 1
        if at == 0 and not hidden:
            data += chunk(b"IDAT", packed)
        else:
            data += chunk(b"fdAT", struct.pack(">I", number) + packed)
            number += 1
    return data + chunk(b"IEND")


def webp(
    parts: list[Part], width: int = 6, height: int = 5, loop: int = 0, stray: bytes = b""
) -> bytes:
    """A WebP that moves; frames begin at even places only."""

    def told(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    def three(number: int) -> bytes:
        return struct.pack("<I", number)[:3]

    body = told(b"VP8X", b"\x12\0\0\0" + three(width - 1) + three(height - 1))
    body += told(b"ANIM", bytes(4) + struct.pack("<H", loop))
    for part in parts:
        image = Image.fromarray(part.pixels)
        file = saved(image, "WEBP", lossless=True, exact=True)
        pixels = file[file.index(b"VP8L") :]
        place = three(part.left // 2) + three(part.top // 2)
        place += three(image.width - 1) + three(image.height - 1) + three(part.duration_ms)
        how = bytes([2 * (not part.over) | (part.disposal == CLEAR)])
        body += told(b"ANMF", place + how + pixels)
    body += stray
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def frames_of(data: bytes) -> list[np.ndarray]:
    """Pillow's view of a file's frames, RGBA."""
    found = []
    with Image.open(BytesIO(data)) as image:
        for at in range(image.n_frames):
            image.seek(at)
            found.append(np.asarray(image.convert("RGBA")))
    return found


def rgba(data: bytes) -> np.ndarray:
    """A still picture, RGBA."""
    return np.asarray(Image.open(BytesIO(data)).convert("RGBA"))
