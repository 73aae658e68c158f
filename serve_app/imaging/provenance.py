"""Where a result comes from, written into its file: enough to make it again.

It holds what was run (version, model, revision, seed, all parameters) and nothing of the source. It is XMP in
Tessera's namespace, which every written format takes, and in PNG a text of its own too. This module refuses
to know how files are laid out, and never decodes one to read it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from serve_app import __version__
from serve_app.imaging.texts import XMP_KEYWORD, png_texts
from serve_app.imaging.xmp import MOST_XMP_BYTES, read_properties

SOFTWARE = f"Tessera {__version__}"
PNG_KEYWORD = "Tessera"

_TEXTS = ("version", "model", "revision")  # stored as they are; all others as JSON
_SIZE = ("ImageWidth", "ImageLength", "Orientation")
# JSON itself leaves these as they are, and XML takes none of them.
_NEITHER = re.compile("[\x7f\ud800-\udfff\ufffe\uffff]")


def as_json(value: Any) -> str:
    """Writes a value as JSON that XML can hold."""
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return _NEITHER.sub(lambda found: f"\\u{ord(found[0]):04x}", plain)


def as_properties(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Writes the provenance as simple properties; what is None says nothing."""
    return {
        name: value if name in _TEXTS and isinstance(value, str) else as_json(value)
        for name, value in provenance.items()
        if value is not None
    }


def read_provenance(data: bytes) -> dict[str, Any] | None:
    """Reads the provenance that an `Encoder` wrote.

    Args:
        data: The whole file, of any format.

    Returns:
        What was written: `version`, `model`, `revision`, `seed`, `parameters`; None if there is nothing.
    """
    return _properties(data) or _in_png_texts(data)


def _properties(data: bytes) -> dict[str, Any]:
    properties = {name: v for name, v in read_properties(data).items() if name not in _SIZE}
    return {name: _value(name, text) for name, text in properties.items()}


def _value(name: str, text: str) -> Any:
    if name in _TEXTS:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _in_png_texts(data: bytes) -> dict[str, Any] | None:
    """What a PNG's own text says, or a packet that another program has compressed, the packet first."""
    plain = None
    for keyword, text in png_texts(data, MOST_XMP_BYTES):
        if keyword == XMP_KEYWORD:
            properties = _properties(text)
            if properties:
                return properties
        elif keyword == PNG_KEYWORD and plain is None:
            plain = _parsed(text)
    return plain


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
