"""XMP packets of results, where a source's own is read in the process of `worker`.

A packet is a stranger's XML, and the parser of it is foreign code as a decoder is. One that ends its reader
costs its result what the source said, and nothing else. This module refuses to know XML.
"""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.errors import InvalidParameter
from serve_app.imaging.worker import write_packet_contained
from serve_app.imaging.xmp import written_packet
from serve_app.settings import ImageLimits


def contained_packet(
    source: bytes | None,
    height: int,
    width: int,
    *,
    keep_gps: bool,
    software: str,
    properties: Mapping[str, str],
    limits: ImageLimits,
) -> bytes | None:
    """Makes the packet of a result as `xmp.written_packet` does; see there.

    Args:
        source: The source's packet; None if it has none or it is not to be kept.
        height: Rows of the result, px.
        width: Columns of the result, px.
        keep_gps: Whether properties that tell a place are kept.
        software: Who wrote the result.
        properties: Simple properties in Tessera's own namespace, by name.
        limits: What reading the source's may take in memory and time.

    Returns:
        The packet; without the source's properties where reading them took too long or ended its reader.

    Raises:
        Busy: no process came free to read the source's.
    """
    facts = {"keep_gps": keep_gps, "software": software, "properties": dict(properties)}
    if source:
        try:
            return write_packet_contained(
                source, facts | {"height": height, "width": width}, limits
            )
        except InvalidParameter:
            source = None
    return written_packet(
        None, height, width, keep_gps=keep_gps, software=software, properties=properties
    )
