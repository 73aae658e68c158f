"""XMP packets: what of a source's is carried over, and what Tessera adds.

A packet is XML from a stranger. It is read as UTF-8 with Python's own parser, and one that declares a
document type is not read at all: without it there are no entities, so none that grow or name a file. What
does not parse, or is too deep or too long, is dropped, never an error. This module refuses to know file
formats.

Source: Adobe, XMP specification, part 1 (2012), chapter 7, and part 3 (2020), section 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.dom import minidom
from xml.parsers.expat import ExpatError

TESSERA = "urn:x-tessera:provenance/1/"

MOST_XMP_BYTES = 65_000  # a JPEG's segment holds no more; the same for all formats
_MOST_PACKETS = 16  # looked at in one file

_META = "adobe:ns:meta/"
_ROOTS = ("xmpmeta", "xapmeta")  # the second in files from before 2003
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMP = "http://ns.adobe.com/xap/1.0/"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"

# Properties that Tessera states itself, or that are no longer true.
_REPLACED = {
    *((_XMP, name) for name in ("CreatorTool", "Thumbnails")),
    *((_TIFF, name) for name in ("Orientation", "ImageWidth", "ImageLength")),
    *((_TIFF, name) for name in ("BitsPerSample", "SamplesPerPixel", "Compression")),
    (_TIFF, "PhotometricInterpretation"),
    ("http://ns.adobe.com/photoshop/1.0/", "ColorMode"),
    *((_EXIF, name) for name in ("PixelXDimension", "PixelYDimension", "ColorSpace")),
    ("http://ns.adobe.com/photoshop/1.0/", "ICCProfile"),
    ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP"),
}
# Pictures beside the source's and how to put them together: depth, gain, motion. They show what was.
_STALE = re.compile(
    r"http://ns\.google\.com/photos/1\.0/|http://ns\.adobe\.com/(hdr-gain-map|xap/1\.0/g/img)/"
    r"|http://ns\.apple\.com/(HDRGainMap|depthData)/"
)
_PLACE = re.compile(
    "gps|.*(latitude|longitude|longtitude|altitude|coordinate|location|locality|geo(tag|code|point|hash))"
    "|(lat|long|lon|lng|alt|lat_long|place|placename|coverage)$"
    "|(city|country|countrycode|countryname|state|province|provincestate|worldregion)$"
    "|(county|municipality|district|town|village|suburb|neighbou?rhood|street|address|post(al)?code|zip(code)?)$"
    "|(continent|island(group)?|waterbody|highergeography|footprintwkt)$",
    re.IGNORECASE,
)

_REMARKS = (minidom.Node.COMMENT_NODE, minidom.Node.PROCESSING_INSTRUCTION_NODE)

_EMPTY = f'<x:xmpmeta xmlns:x="{_META}"><rdf:RDF xmlns:rdf="{_RDF}"/></x:xmpmeta>'
_BEFORE = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_AFTER = '\n<?xpacket end="w"?>'
_NO_XML_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def written_packet(
    source: bytes | None,
    height: int,
    width: int,
    *,
    keep_gps: bool,
    software: str,
    properties: Mapping[str, str],
) -> bytes | None:
    """Makes the packet of a result.

    Args:
        source: The source's packet; None if it has none or it is not to be kept.
        height: Rows of the result, px.
        width: Columns of the result, px.
        keep_gps: Whether properties that tell a place are kept.
        software: Who wrote the result.
        properties: Simple properties in Tessera's own namespace, by name.

    Returns:
        A packet of at most `MOST_XMP_BYTES`: without the source's properties if with them it would be longer,
        and None if even then, or if there is nothing to say.
    """
    facts = {
        ("xmp", _XMP, "CreatorTool"): software,
        ("tiff", _TIFF, "Orientation"): "1",
        ("tiff", _TIFF, "ImageWidth"): str(width),
        ("tiff", _TIFF, "ImageLength"): str(height),
    }
    facts |= {("tessera", TESSERA, name): value for name, value in properties.items()}
    for given in (source, None):
        if given is None and not properties:
            return None
        try:
            document = _parsed(_EMPTY if given is None else given.decode())
            _clean(document, keep_gps)
            _add(document, facts)
            packet = f"{_BEFORE}{_root(document).toxml()}{_AFTER}".encode()
        except (ValueError, ExpatError, RecursionError):
            continue
        if len(packet) <= MOST_XMP_BYTES:
            return packet
    return None


def read_properties(data: bytes) -> dict[str, str]:
    """Reads Tessera's properties from the first packet of a file that has any, whatever its format.

    No format is decoded: packets are stored plain so that they can be found by their first bytes.

    Returns:
        Tessera's properties by name, and `ImageWidth` and `ImageLength`; empty if there is no such packet.
    """
    for packet in _packets(data):
        try:
            document = _parsed(packet.decode())
        except (ValueError, ExpatError, RecursionError):
            continue
        found: dict[str, str] = {}
        for node in _elements(document):
            if node.namespaceURI in (TESSERA, _TIFF):
                found[node.localName] = "".join(
                    part.data for part in node.childNodes if part.nodeType == part.TEXT_NODE
                )
            found |= {
                a.localName: a.value
                for a in _attributes(node)
                if a.namespaceURI in (TESSERA, _TIFF)
            }
        return found
    return {}


def _packets(data: bytes) -> Iterator[bytes]:
    end = 0
    for _ in range(_MOST_PACKETS):
        start = data.find(b"<x:xmpmeta", end)
        if start < 0:
            return
        end = data.find(b"</x:xmpmeta>", start, start + MOST_XMP_BYTES)
        if end < 0:
            end = start + 1
            continue
        end += len(b"</x:xmpmeta>")
        if data.find(TESSERA.encode(), start, end) >= 0:
            yield bytes(data[start:end])


def _parsed(packet: str) -> minidom.Document:
    """Parses a packet.

    Raises:
        ValueError: it declares a document type, or is no XMP.
        ExpatError: it is no XML.
    """
    if "<!DOCTYPE" in packet or "<!ENTITY" in packet:
        raise ValueError("it declares a document type")
    if len(packet) > 4 * MOST_XMP_BYTES:
        raise ValueError("too long")
    document = minidom.parseString(packet.strip("\ufeff\0 \t\r\n").encode())
    root = _root(document)
    if root.namespaceURI == _RDF:
        return _parsed(f'<x:xmpmeta xmlns:x="{_META}">{root.toxml()}</x:xmpmeta>')
    if root.namespaceURI != _META or root.localName not in _ROOTS:
        raise ValueError("no XMP")
    if root.tagName != "x:xmpmeta":
        document.renameNode(root, _META, "x:xmpmeta")
        root.setAttributeNS("http://www.w3.org/2000/xmlns/", "xmlns:x", _META)
    return document


def _elements(document: minidom.Document) -> Iterator[minidom.Element]:
    """All elements, the outer before the inner; without recursion, since a stranger chose the depth."""
    waiting = [_root(document)]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [c for c in reversed(node.childNodes) if isinstance(c, minidom.Element)]


def _root(document: minidom.Document) -> minidom.Element:
    if document.documentElement is None:
        raise ValueError("no XML")
    return document.documentElement


def _attributes(node: minidom.Element) -> list[minidom.Attr]:
    return list(node.attributes.values())


def _clean(document: minidom.Document, keep_gps: bool) -> None:
    """Takes out what Tessera states itself, what is no longer true, and, unless it is to be kept, the place."""

    def goes(item: minidom.Element | minidom.Attr) -> bool:
        name = item.localName or ""
        if item.namespaceURI == TESSERA or (item.namespaceURI, name) in _REPLACED:
            return True
        if _STALE.match(item.namespaceURI or ""):
            return True
        return not keep_gps and item.namespaceURI != _RDF and _PLACE.match(name) is not None

    for node in list(_elements(document)):
        for remark in [c for c in node.childNodes if c.nodeType in _REMARKS]:
            node.removeChild(remark)
        for attribute in _attributes(node):
            if attribute.prefix != "xmlns" and goes(attribute):
                node.removeAttributeNode(attribute)
        outer = node.parentNode
        if isinstance(outer, minidom.Element) and goes(node):
            outer.removeChild(node)


def _add(document: minidom.Document, facts: Mapping[tuple[str, str, str], str]) -> None:
    groups = document.getElementsByTagNameNS(_RDF, "RDF")
    if not groups:
        raise ValueError("no RDF")
    told = document.createElementNS(_RDF, "rdf:Description")
    told.setAttributeNS("http://www.w3.org/2000/xmlns/", "xmlns:rdf", _RDF)
    told.setAttributeNS(_RDF, "rdf:about", "")
    for (prefix, uri, name), value in facts.items():
        told.setAttributeNS("http://www.w3.org/2000/xmlns/", f"xmlns:{prefix}", uri)
        item = document.createElementNS(uri, f"{prefix}:{name}")
        item.appendChild(document.createTextNode(_NO_XML_CHARACTER.sub("", value)))
        told.appendChild(item)
    groups[0].appendChild(told)
