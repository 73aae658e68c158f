"""Read pictures out of Qt resource bundles (``.rcc``), the container that GCompris ships.

Qt's own tool is a large dependency for what is a table of names and byte ranges, so the few fields
needed here are read directly. Compressed entries are skipped: pictures are stored as they are.

Source: Qt, ``qtbase/src/corelib/io/qresource.cpp`` (layout of the tree, names and data sections).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = b"qres"
_IS_COMPRESSED = 0x01
_IS_DIRECTORY = 0x02
_IS_ZSTD = 0x04


class BadBundleError(ValueError):
    """The bytes are not a Qt resource bundle of a known version."""


@dataclass(frozen=True)
class _Layout:
    """Where the three sections of a bundle begin, and how long a tree node is."""

    tree: int
    data: int
    names: int
    node_bytes: int


def read_bundle(blob: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of every uncompressed file in a bundle.

    Args:
        blob: the whole bundle.

    Yields:
        Pairs of slash-separated path and file content, in tree order.

    Raises:
        BadBundleError: the header is not that of a resource bundle.
    """
    layout = _read_header(blob)
    yield from _walk(blob, layout, node=0, folder="")


def _read_header(blob: bytes) -> _Layout:
    if blob[:4] != _MAGIC or len(blob) < 20:
        raise BadBundleError("not a Qt resource bundle")
    version, tree, data, names = struct.unpack_from(">4I", blob, 4)
    if version not in (1, 2, 3):
        raise BadBundleError(f"unknown bundle version {version}")
    return _Layout(tree, data, names, node_bytes=14 if version == 1 else 22)


def _walk(blob: bytes, layout: _Layout, node: int, folder: str) -> Iterator[tuple[str, bytes]]:
    at = layout.tree + node * layout.node_bytes
    name_at, flags = struct.unpack_from(">IH", blob, at)
    path = folder if node == 0 else f"{folder}/{_name(blob, layout.names + name_at)}".lstrip("/")
    if flags & _IS_DIRECTORY:
        count, first = struct.unpack_from(">2I", blob, at + 6)
        for child in range(first, first + count):
            yield from _walk(blob, layout, child, path)
    elif not flags & (_IS_COMPRESSED | _IS_ZSTD):
        (data_at,) = struct.unpack_from(">I", blob, at + 10)
        (length,) = struct.unpack_from(">I", blob, layout.data + data_at)
        begin = layout.data + data_at + 4
        yield path, blob[begin : begin + length]


def _name(blob: bytes, at: int) -> str:
    (length,) = struct.unpack_from(">H", blob, at)
    return blob[at + 6 : at + 6 + 2 * length].decode("utf-16-be")
