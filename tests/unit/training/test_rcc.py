import struct

import pytest

from training.rcc import BadBundleError, read_bundle


def _bundle(name: str, content: bytes) -> bytes:
    """A version-1 bundle with one folder that holds one file."""
    names = b""
    places = []
    for text in ("folder", name):
        places.append(len(names))
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
    nodes = struct.pack(">IHII", 0, 2, 1, 1)
    nodes += struct.pack(">IHII", places[0], 2, 1, 2)
    nodes += struct.pack(">IHHHI", places[1], 0, 0, 0, 0)
    data = struct.pack(">I", len(content)) + content
    tree_at = 20
    data_at = tree_at + len(nodes)
    header = b"qres" + struct.pack(">4I", 1, tree_at, data_at, data_at + len(data))
    return header + nodes + data + names


def test_reads_names_and_content() -> None:
    assert list(read_bundle(_bundle("a.png", b"pixels"))) == [("folder/a.png", b"pixels")]


def test_refuses_other_files() -> None:
    with pytest.raises(BadBundleError):
        list(read_bundle(b"PK\x03\x04" + bytes(40)))
