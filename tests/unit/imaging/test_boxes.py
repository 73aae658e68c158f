from __future__ import annotations

import struct

import pytest

from serve_app.imaging.boxes import read_boxes, without_turns
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
    assert (facts.height, facts.width, facts.claimed_pixels) == (20, 30, 60000**2)


def test_what_a_clean_aperture_hides_is_judged_too():
    clap = box(b"clap", struct.pack(">8I", 1, 1, 1, 1, 0, 1, 0, 1))
    facts = read_boxes(file([ispe(60000, 60000), clap], [1, 2]))
    assert (facts.height, facts.width, facts.claimed_pixels) == (1, 1, 60000**2)


ALPHA = box(b"auxC", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", full=True)


def irot(quarters):
    return box(b"irot", bytes([quarters]))


def imir(mode):
    return box(b"imir", bytes([mode]))


@pytest.mark.parametrize(
    ("turns", "orientation"),
    [
        ([imir(1)], 2),
        ([irot(2)], 3),
        ([imir(0)], 4),
        ([irot(3)], 6),
        ([irot(1)], 8),
        ([irot(3), imir(1)], 5),
        ([imir(0), irot(1)], 7),
        ([imir(1), irot(1)], 5),
        ([irot(1), imir(1)], 7),
        ([irot(2), imir(0)], 2),
    ],
)
def test_with_alpha_turns_are_told_instead_of_left_to_the_decoder(turns, orientation):
    places = range(1, 2 + len(turns))
    data = file([ispe(30, 20), *turns, ALPHA], places)
    facts = read_boxes(data)
    assert (facts.height, facts.width, facts.orientation) == (20, 30, orientation)
    assert facts.window == (0, 0, 30, 20)
    plain = without_turns(data)
    assert len(plain) == len(data)
    assert read_boxes(plain).window is None
    without_alpha = read_boxes(file([ispe(30, 20), *turns], places))
    assert (without_alpha.orientation, without_alpha.window) == (1, None)


def test_with_alpha_what_is_seen_is_told():
    clap = box(b"clap", struct.pack(">4IiIiI", 20, 1, 9, 1, 3, 1, -5, 2))
    facts = read_boxes(file([ispe(30, 20), clap, ALPHA], [1, 2, 3]))
    assert (facts.height, facts.width) == (9, 20)
    assert facts.window == (8, 3, 20, 9)


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
