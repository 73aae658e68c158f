from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.imaging.provenance import as_json, as_properties, read_provenance
from serve_app.imaging.xmp import written_packet
from tests.unit.imaging.pictures import chunk
from tests.unit.imaging.results import PROVENANCE

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(values)
def test_json_comes_back_and_xml_can_hold_it(value):
    text = as_json(value)
    assert json.loads(text) == value
    assert all(c >= " " and c not in "\ufffe\uffff" for c in text)


@given(st.dictionaries(st.text(), values, max_size=4), st.integers(0, 2**63 - 1))
def test_what_is_written_is_read(parameters, seed):
    provenance = {"version": "1", "model": "mini", "seed": seed, "parameters": parameters}
    packet = written_packet(
        None,
        1,
        1,
        keep_gps=False,
        software="Tessera 1",
        properties=as_properties(provenance | {"revision": None}),
    )
    assert packet is not None
    assert read_provenance(b"any file" + packet) == provenance


def png_text(body: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"iTXt", b"Tessera\0\0\0\0\0" + body) + chunk(b"IEND")


def test_a_pngs_own_text_is_read_where_the_xmp_was_taken_out():
    assert read_provenance(png_text(as_json(PROVENANCE).encode())) == PROVENANCE


def test_what_another_program_has_compressed_is_read():
    """libvips writes all texts anew in compressed chunks."""
    packet = written_packet(
        None, 1, 1, keep_gps=False, software="Tessera 1", properties=as_properties(PROVENANCE)
    )
    text = zlib.compress(as_json(PROVENANCE).encode())
    for stored in (
        chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(packet)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)),
        chunk(b"zTXt", b"Tessera\0\0" + text),
        chunk(b"zTXt", b"Tessera\0\0no zlib") + chunk(b"iTXt", b"Tessera\0\1\0\0\0" + text),
    ):
        assert read_provenance(b"\x89PNG\r\n\x1a\n" + stored + chunk(b"IEND")) == PROVENANCE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        png_text(b"{"),
        png_text(b"[1]"),
        png_text(b"\xff"),
        png_text(b"[" * 60000),
        png_text(b'{"a":"' + b"x" * 70000 + b'"}'),
        b"GIF8" + png_text(b"{}"),
    ],
)
def test_other_files_have_none(data):
    assert read_provenance(data) is None
