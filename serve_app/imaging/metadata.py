"""What of a source's EXIF its result may say, and with which values.

A block is taken apart and built anew from tags that are still true of an enlarged picture, so nothing hidden
between them travels along: no thumbnail, no place unless it was asked for, no maker's note. A block that
makes no sense is dropped, never an error: it is not what the caller came for. This module refuses to know
file formats.
"""

from __future__ import annotations

from serve_app.imaging.ifd import (
    EXIF_TAG,
    GPS_TAG,
    LONG,
    ORIENTATION_TAG,
    SHORT,
    Directory,
    Value,
    numbers,
    read_block,
    text,
    write_block,
)

MOST_EXIF_BYTES = 64_000  # a JPEG's segment holds no more; the same for all formats

_IMAGE_WIDTH, _IMAGE_HEIGHT, _SOFTWARE = 0x0100, 0x0101, 0x0131
_COLOUR_SPACE, _PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA001, 0xA002, 0xA003

# The first directory of a TIFF source is full of where its pixels lie; so here it is said what is kept.
_KEPT = frozenset(
    {
        *(0x010E, 0x010F, 0x0110),  # description, make, model
        *(_IMAGE_WIDTH, _IMAGE_HEIGHT),
        *(0x011A, 0x011B, 0x0128),  # resolution and its unit
        *(0x0132, 0x013B, 0x013C, 0x8298),  # date, artist, computer, copyright
        *(0x4746, 0x4749),  # rating
        *(
            0x9C9B,
            0x9C9C,
            0x9C9D,
            0x9C9E,
            0x9C9F,
        ),  # Windows' title, comment, author, keywords, subject
    }
)
# What a camera says of a shot stays true for the most part. Numbers outside of these are makers' own: nobody
# knows what they hold, and it may be a place.
_SHOT = (
    *(0x829A, 0x829D, 0x8822, 0x8824),
    *range(0x8827, 0x8836),  # sensitivity
    *range(0x9000, 0x9016),  # version, dates
    *range(0x9200, 0x9215),  # exposure
    *(0x9286, *range(0x9290, 0x9293)),  # the user's comment, parts of a second
    *range(0x9400, 0x9406),  # temperature, pressure
    *range(0xA000, 0xA470),
)
# And here what is not kept of them.
_NOT_KEPT = frozenset(
    {
        0x927C,  # the maker's note: most hold offsets that break when they move, and some a place
        0xA005,  # interoperability, which says again what colours these are
        *(0x9101, 0x9102),  # how a JPEG's samples were stored
        *(0x9214, 0xA214),  # the subject's place, in px of the source
        *(0xA20E, 0xA20F, 0xA210),  # px on the sensor
        0xA004,  # a sound file beside the source
    }
)


def carried_exif(
    block: bytes | None, height: int, width: int, *, keep_gps: bool, is_srgb: bool, software: str
) -> bytes | None:
    """Makes the EXIF block of a result.

    Args:
        block: The source's, from the byte order mark on.
        height: Rows of the result, px.
        width: Columns of the result, px.
        keep_gps: Whether the place is kept.
        is_srgb: Whether the result is stored in sRGB.
        software: Who wrote the result.

    Returns:
        A block in the source's byte order; None if there was none, or none that makes sense or fits.
    """
    if not block:
        return None
    try:
        order, found = read_block(block)
    except ValueError:
        return None
    kept: dict[int, Value | Directory] = {tag: v for tag, v in found.items() if tag in _KEPT}
    kept[ORIENTATION_TAG] = numbers(order, SHORT, 1)
    kept[_SOFTWARE] = text(software)
    for tag, side in ((_IMAGE_WIDTH, width), (_IMAGE_HEIGHT, height)):
        if tag in kept:
            kept[tag] = numbers(order, LONG, side)
    shot = found.get(EXIF_TAG)
    if shot is not None and not isinstance(shot, Value):
        true_still = frozenset(_SHOT) - _NOT_KEPT
        corrected = {tag: value for tag, value in shot.items() if tag in true_still}
        corrected[_PIXEL_WIDTH] = numbers(order, LONG, width)
        corrected[_PIXEL_HEIGHT] = numbers(order, LONG, height)
        corrected[_COLOUR_SPACE] = numbers(order, SHORT, 1 if is_srgb else 0xFFFF)
        kept[EXIF_TAG] = corrected
    if keep_gps and GPS_TAG in found:
        kept[GPS_TAG] = found[GPS_TAG]
    written = write_block(kept, order)
    return written if len(written) <= MOST_EXIF_BYTES else None


def exif_of_tiff(data: bytes) -> bytes | None:
    """Gathers a TIFF file's own tags and its EXIF and GPS directories to a block as other formats have it.

    Args:
        data: The whole file. It is not copied; what its first directory says of pixels is left out.

    Returns:
        A block from its byte order mark on; None for a BigTIFF, or where there is nothing or no sense in it.
    """
    try:
        order, found = read_block(data)
    except ValueError:
        return None
    kept = {
        tag: value
        for tag, value in found.items()
        if (tag in _KEPT and tag not in (_IMAGE_WIDTH, _IMAGE_HEIGHT)) or tag in (EXIF_TAG, GPS_TAG)
    }
    return write_block(kept, order) if kept else None
