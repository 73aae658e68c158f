"""Colour spaces that files name by numbers, and ICC profiles that say the same.

PNG, AVIF and HEIC can say by four numbers, or by chromaticities and a gamma, what others say by a profile. As a
profile it goes the one way that all profiles go (`colour`), and a result can be written back in it. This
module refuses to know files and pixels.

Source: ITU-T H.273, tables 2 and 3; the PNG specification, third edition, 11.3.2; ICC.1:2022, chapters 7, 9
and 10 and annex E (Bradford's adaptation).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HIGH_RANGES = {16: "PQ", 18: "HLG"}
"""Transfer characteristics that no profile brings to sRGB."""

_D65 = (0.3127, 0.3290)
_D50 = np.array([0.9642, 1.0, 0.8249])  # of all profiles, as XYZ
_BT709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65)
_PRIMARIES = {
    1: _BT709,
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *_D65),
}
_EXPONENTS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_LENGTHS = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
_PNG_UNIT = 100_000
_PNG_GAMMA_OF_SRGB = (
    45_455  # what writers of sRGB state for readers that know no better: it means sRGB's curve
)
_GAMMAS = (_PNG_UNIT // 5, _PNG_UNIT * 5)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


@dataclass(frozen=True, slots=True)
class Space:
    """An RGB space; of a gray picture, its curve alone counts.

    Attributes:
        chromaticities: x and y of red, green, blue and white, CIE 1931.
        exponent: Light is a sample's power of this; None is sRGB's own curve.
    """

    chromaticities: tuple[float, ...] = _BT709
    exponent: float | None = None


SRGB = Space()


def of_codes(primaries: int, transfer: int) -> Space:
    """The space of H.273's numbers; one that says nothing counts as sRGB's.

    The curves of video for common screens (1, 6, 14, 15 and their kin) count as sRGB's: what they encode is
    meant for the same screens, and viewers show it so.
    """
    return Space(_PRIMARIES.get(primaries, _BT709), _EXPONENTS.get(transfer))


def of_png(chunks: Mapping[bytes, bytes]) -> Space | None:
    """The space that a PNG's chunks name, by their precedence: cICP, iCCP, sRGB, gAMA with cHRM.

    Args:
        chunks: What each of those holds that the file has; of iCCP its beginning. One of a wrong length counts
            as absent, as it does for other readers.

    Returns:
        None where none of them is there, or iCCP's profile counts.
    """
    chunks = {
        kind: body for kind, body in chunks.items() if len(body) == _LENGTHS.get(kind, len(body))
    }
    if b"cICP" in chunks:
        return of_codes(*chunks[b"cICP"][:2])
    if b"iCCP" in chunks:
        return None
    if b"sRGB" in chunks:
        return SRGB
    if b"gAMA" not in chunks and b"cHRM" not in chunks:
        return None
    chromaticities, exponent = _BT709, None
    if b"cHRM" in chunks:
        white_first = [number / _PNG_UNIT for number in struct.unpack_from(">8I", chunks[b"cHRM"])]
        chromaticities = (*white_first[2:], *white_first[:2])
    if b"gAMA" in chunks:
        (gamma,) = struct.unpack_from(">I", chunks[b"gAMA"])
        if _GAMMAS[0] <= gamma <= _GAMMAS[1] and abs(gamma - _PNG_GAMMA_OF_SRGB) > 1:
            exponent = _PNG_UNIT / gamma
    return Space(chromaticities, exponent)


def profile(space: Space, *, gray: bool) -> bytes | None:
    """An ICC profile of a space.

    Args:
        space: Which.
        gray: Whether for one channel instead of three.

    Returns:
        Under 1 kB; None where the chromaticities span no colours.
    """
    adapted = _adapted(space.chromaticities)
    if adapted is None:
        return None
    columns, adaptation = adapted
    tags = {
        b"desc": _text("Named by numbers in a file"),
        b"cprt": _text("Public domain"),
        b"wtpt": _xyz(_D50),
        b"chad": b"sf32" + bytes(4) + _fixed(adaptation.ravel()),
    }
    curve = _curve(space.exponent)
    if gray:
        tags[b"kTRC"] = curve
    else:
        for at, name in enumerate((b"r", b"g", b"b")):
            tags[name + b"XYZ"] = _xyz(columns[:, at])
            tags[name + b"TRC"] = curve
    return _file(tags, b"GRAY" if gray else b"RGB ")


def _adapted(
    chromaticities: tuple[float, ...],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The primaries' XYZ as columns, seen under D50, and the matrix that adapts to it."""
    if not all(0 < y <= 1 for y in chromaticities[1::2]):
        return None
    colours = [_of_xy(*chromaticities[at : at + 2]) for at in (0, 2, 4, 6)]
    primaries, white = np.stack(colours[:3], axis=1), colours[3]
    if abs(np.linalg.det(primaries)) < 1e-3:
        return None
    seen, wanted = _BRADFORD @ white, _BRADFORD @ _D50
    if (seen <= 0).any():
        return None
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(wanted / seen) @ _BRADFORD
    columns = adaptation @ (primaries * np.linalg.solve(primaries, white))
    if not max(np.abs(columns).max(), np.abs(adaptation).max()) < 8:  # nothing that anyone sees
        return None
    return columns, adaptation


def _of_xy(x: float, y: float) -> NDArray[np.float64]:
    return np.array([x / y, 1, (1 - x - y) / y])


def _file(tags: Mapping[bytes, bytes], kind: bytes) -> bytes:
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">II4s4s4s4s", start + len(body), 0, b"\4\x30\0\0", b"mntr", kind, b"XYZ ")
    head += struct.pack(">6H4s24x", 2000, 1, 1, 0, 0, 0, b"acsp")
    head += struct.pack(">I", 1) + _fixed(_D50)  # relative colorimetry, D50
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _curve(exponent: float | None) -> bytes:
    kind, numbers = (3, _SRGB_CURVE) if exponent is None else (0, (exponent,))
    return struct.pack(">4s4xHxx", b"para", kind) + _fixed(numbers)


def _text(text: str) -> bytes:
    body = text.encode("utf-16-be")
    return struct.pack(">4s4xII4sII", b"mluc", 1, 12, b"enUS", len(body), 28) + body


def _xyz(colour: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(colour)


def _fixed(numbers: NDArray[np.float64] | tuple[float, ...]) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(float(number) * 65536) for number in numbers))
