from __future__ import annotations

import struct

import pytest

from serve_app.imaging.boxes import read_boxes
from serve_app.imaging.containers import NotRead
from serve_app.imaging.spaces import of_codes


def box(kind, content=b"", full=False):
    content = bytes(4) + content if full else content
    return struct.pack(">I4s", len(content) + 8, kind) + content


def ispe(width, height):
    return box(b"ispe", struct.pack(">II", width, height), full=True)


def file(properties, own, item=1):
    """A file of one item with the properties at places `own`, from 1."""
    ipma = box(b"ipma", struct.pack(">IHB", 1, item, len(own)) + bytes(own), full=True)
    iprp = box(b"iprp", box(b"ipco", b"".join(properties)) + ipma)
    meta = box(b"meta", box(b"pitm", struct.pack(">H", 1), full=True) + iprp, full=True)
    return box(b"ftyp", b"avif" + bytes(4)) + meta


def test_size_and_bits():
    pixi = box(b"pixi", bytes([3, 10, 10, 10]), full=True)
    facts = read_boxes(file([ispe(30, 20), pixi], [1, 2]))
    assert (facts.height, facts.width, facts.bit_depth, facts.has_alpha) == (20, 30, 10, False)


@pytest.mark.parametrize(
    ("angle", "size"), [(0, (20, 30)), (1, (30, 20)), (2, (20, 30)), (3, (30, 20))]
)
def test_a_turn_lays_it_on_its_side(angle, size):
    facts = read_boxes(file([ispe(30, 20), box(b"irot", bytes([angle]))], [1, 2]))
    assert (facts.height, facts.width) == size
    assert facts.orientation == 1


def test_a_clean_aperture_crops():
    clap = box(b"clap", struct.pack(">8I", 29, 1, 19, 1, 0, 1, 0, 1))
    facts = read_boxes(file([ispe(64, 64), clap], [1, 2]))
    assert (facts.height, facts.width) == (19, 29)


def test_what_another_item_claims_is_judged_too():
    facts = read_boxes(file([ispe(30, 20), ispe(60000, 60000)], [1]))
    assert facts.height * facts.width == 60000**2


def nclx(primaries, transfer):
    return box(b"colr", b"nclx" + struct.pack(">HHHB", primaries, transfer, 6, 128))


def test_colours_by_numbers_unless_there_is_a_profile():
    assert read_boxes(file([ispe(30, 20)], [1])).space is None
    assert read_boxes(file([ispe(30, 20), nclx(12, 13)], [1, 2])).space == of_codes(12, 13)
    assert read_boxes(file([ispe(30, 20), nclx(12, 13)], [1])).space is None
    both = [ispe(30, 20), nclx(12, 13), box(b"colr", b"prof" + bytes(128))]
    assert read_boxes(file(both, [1, 2, 3])).space is None


def test_premultiplied_is_what_refers_so():
    refers = box(b"iref", box(b"prem", struct.pack(">HHH", 1, 1, 2)), full=True)
    data = file([ispe(30, 20)], [1])
    with_it = data[:16] + box(b"meta", data[24:] + refers)  # its last box
    assert read_boxes(with_it).weighed
    assert not read_boxes(data).weighed


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_refused_by_name(transfer):
    colr = box(b"colr", b"nclx" + struct.pack(">HHHB", 9, transfer, 9, 128))
    with pytest.raises(NotRead, match="high dynamic range"):
        read_boxes(file([ispe(30, 20), colr], [1, 2]))


@pytest.mark.parametrize(
    "data",
    [
        box(b"ftyp", b"avif"),
        file([ispe(30, 20)], [1], item=2),
        file([box(b"free")], [1]),
        file([ispe(30, 20), box(b"clap", bytes(32))], [1, 2]),
        box(b"ftyp", b"avif") + box(b"free") * 5000,
        box(b"ftyp", b"avif") + struct.pack(">I4s", 2**31, b"meta") + bytes(50),
        box(b"ftyp", b"avif") + struct.pack(">I4s", 4, b"meta") + bytes(50),
    ],
    ids=[
        "no meta",
        "no properties",
        "no size",
        "clap of nothing",
        "boxes",
        "too long",
        "too short",
    ],
)
def test_nonsense(data):
    with pytest.raises((ValueError, IndexError, struct.error)):
        read_boxes(data)


def test_cut_anywhere():
    data = file([ispe(30, 20)], [1])
    for end in range(len(data)):
        with pytest.raises((ValueError, IndexError, struct.error)):
            read_boxes(data[:end])
