from __future__ import annotations

from xml.dom import minidom

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.imaging.xmp import MOST_XMP_BYTES, TESSERA, read_properties, written_packet
from tests.unit.imaging.results import XMP

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
OPEN = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
CLOSE = "</rdf:RDF></x:xmpmeta>"
BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'
    f'{OPEN}<rdf:Description xmlns:dc="d/"><dc:rights>&b;</dc:rights></rdf:Description>{CLOSE}'
)
FILE = f'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>{OPEN}<a>&a;</a>{CLOSE}'


def packet(source: bytes | None, keep_gps: bool = False, **properties: str) -> bytes:
    found = written_packet(
        source,
        300,
        400,
        keep_gps=keep_gps,
        software="Tessera 1",
        properties={"version": "1"} | properties,
    )
    assert found is not None
    return found


def values(data: bytes, name: str) -> list[str]:
    """Of a property in any namespace, as attributes and as elements."""
    document = minidom.parseString(data[data.index(b"<x:") : data.rindex(b"<?xpacket")])
    found = []
    for node in document.getElementsByTagName("*"):
        found += [a.value for a in node.attributes.values() if a.localName == name]
        found += [node.firstChild.data] if node.localName == name else []
    return found


def test_a_source_is_carried_over_and_corrected():
    data = packet(XMP)
    assert values(data, "rights") == ["Ada & Bob"]
    assert values(data, "CreatorTool") == ["Tessera 1"]
    assert values(data, "Orientation") == ["1"]
    assert values(data, "ImageWidth") == ["400"]
    assert values(data, "ImageLength") == ["300"]
    assert b"PixelXDimension" not in data
    assert b"Thumbnails" not in data
    assert data.startswith(b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>')


@pytest.mark.parametrize("keep_gps", [False, True])
def test_the_place_is_kept_only_if_asked_for(keep_gps):
    data = packet(XMP, keep_gps)
    for name, value in [
        ("GPSLatitude", "52,31.2N"),
        ("GPSLongitude", "13,24.5E"),
        ("GpsLongtitude", "13.4"),
    ]:
        assert values(data, name) == ([value] if keep_gps else [])


def test_a_bare_rdf_is_wrapped():
    start, end = XMP.index(b"<rdf:RDF"), XMP.index(b"</x:xmpmeta")
    assert values(packet(XMP[start:end]), "rights") == ["Ada & Bob"]


@pytest.mark.parametrize("name", ["x:xapmeta", "meta:xmpmeta", "xmpmeta"])
def test_a_root_by_another_name_is_carried_over(name):
    declared = f'xmlns{":" * (":" in name)}{name.rpartition(":")[0]}="adobe:ns:meta/"'
    source = OPEN.replace("x:xmpmeta", name).replace('xmlns:x="adobe:ns:meta/"', declared)
    about = '<d:rights xmlns:d="http://purl.org/dc/elements/1.1/">Ada</d:rights>'
    whole = f"{source}<rdf:Description>{about}</rdf:Description>"
    data = packet(f"{whole}{CLOSE.replace('x:xmpmeta', name)}".encode(), keep_gps=True)
    assert b">Ada<" in data
    assert read_properties(data)["version"] == "1"


def test_what_an_earlier_run_said_is_replaced():
    again = packet(packet(XMP, seed="1"), seed="2")
    assert values(again, "seed") == ["2"]
    assert again.count(b"CreatorTool>") == 2  # it begins and ends once
    assert values(again, "rights") == ["Ada & Bob"]


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"no xml",
        b"<x:xmpmeta",
        b"\xff\xfe<\0",
        b"<html/>",
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>',
        BOMB.encode(),
        FILE.encode(),
        f"{OPEN}{'<a>' * 5000}{'</a>' * 5000}{CLOSE}".encode(),
        f"{OPEN}<rdf:Description>{'x' * MOST_XMP_BYTES}</rdf:Description>{CLOSE}".encode(),
        f"{OPEN}<rdf:Description>{'x' * 10**6}</rdf:Description>{CLOSE}".encode(),
    ],
    ids=[
        *("empty", "text", "cut", "utf-16", "html", "no rdf", "bomb", "file"),
        *("deep", "long", "longer"),
    ],
)
def test_what_cannot_be_carried_is_dropped(source):
    assert packet(source) == packet(None)


def test_nothing_to_say_is_no_packet():
    given = {"keep_gps": False, "software": "Tessera 1", "properties": {}}
    assert written_packet(None, 1, 1, **given) is None
    assert written_packet(b"broken", 1, 1, **given) is None


def test_too_long_properties_are_no_packet():
    given = {"keep_gps": False, "software": "Tessera 1"}
    assert written_packet(None, 1, 1, properties={"a": "x" * MOST_XMP_BYTES}, **given) is None


@given(st.text(max_size=60))
def test_any_text_comes_back_but_for_what_xml_cannot_hold(value):
    found = read_properties(b"\0\1" + packet(None, prompt=value) + b"\2")
    held = "".join(c for c in value if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff"))
    assert found["prompt"] == held.replace("\r\n", "\n").replace("\r", "\n")
    assert found["ImageWidth"] == "400"


def test_properties_as_attributes_are_read():
    data = f'{OPEN}<rdf:Description xmlns:t="{TESSERA}" t:seed="7"/>{CLOSE}'.encode()
    assert read_properties(b"II*\0" + data) == {"seed": "7"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        XMP,
        BOMB.encode() + TESSERA.encode(),
        OPEN.encode() + TESSERA.encode(),
        f"{OPEN}<!-- {TESSERA} --><a>{CLOSE}".encode(),
        f"<x:xmpmeta><!DOCTYPE a>{TESSERA}</x:xmpmeta>".encode(),
        b"<x:xmpmeta" * 1000,
    ],
)
def test_other_files_have_none(data):
    assert read_properties(data) == {}


PLACES = (
    '<d:City xmlns:d="http://ns.adobe.com/photoshop/1.0/">52.31N</d:City>',
    '<rdf:Description xmlns:odd="http://ns.adobe.com/exif/1.0/" odd:GPSPosition="52.31N"/>',
    '<e:LocationCreated xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"><rdf:Bag>'
    '<rdf:li e:Sublocation="52.31N"/></rdf:Bag></e:LocationCreated>',
    '<rdf:Description xmlns:j="http://www.dji.com/drone-dji/1.0/" j:GpsLatitude="52.31N"/>',
    '<c:CountryCode xmlns:c="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/">52.31N</c:CountryCode>',
    '<rdf:Description xmlns:j="http://www.dji.com/drone-dji/1.0/" j:AbsoluteAltitude="52.31N"/>',
    '<o:Coordinates xmlns:o="http://example.org/">52.31N</o:Coordinates>',
    '<o:lat xmlns:o="http://www.w3.org/2003/01/geo/wgs84_pos#">52.31N</o:lat>',
    '<o:coverage xmlns:o="http://purl.org/dc/elements/1.1/">52.31N</o:coverage>',
    *(
        f'<o:{name} xmlns:o="http://rs.tdwg.org/dwc/terms/">52.31N</o:{name}>'
        for name in ("county", "municipality", "island", "waterBody", "continent", "footprintWKT")
    ),
    '<o:PostalCode xmlns:o="http://example.org/">52.31N</o:PostalCode>',
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("keep_gps", [False, True])
def test_a_place_in_any_form(place, keep_gps):
    data = packet(f"{OPEN}<rdf:Description>{place}</rdf:Description>{CLOSE}".encode(), keep_gps)
    assert (b"52.31N" in data) is keep_gps


@pytest.mark.parametrize(
    "stale",
    [
        "<!-- 52.31N -->",
        "<?note 52.31N?>",
        '<g:Data xmlns:g="http://ns.google.com/photos/1.0/image/">52.31N</g:Data>',
        '<g:image xmlns:g="http://ns.adobe.com/xap/1.0/g/img/">52.31N</g:image>',
        '<g:Version xmlns:g="http://ns.apple.com/HDRGainMap/1.0/">52.31N</g:Version>',
    ],
)
def test_remarks_and_pictures_beside_it_do_not_travel(stale):
    source = f"{OPEN}<rdf:Description>{stale}</rdf:Description>{CLOSE}".encode()
    assert b"52.31N" not in packet(source, keep_gps=True)
