"""`tessera inspect`: what a file says of itself, and how to make it again if Tessera made it.

Headers are read and no pixel is decoded; what takes a decoder's library is read in the decoder's process. What
a stranger wrote is told in plain characters, since a terminal obeys others. This module refuses to know how any
of it came into the file.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serve_app import __version__
from serve_app.cli.exits import Exit, UsageError
from serve_app.contracts import UpscaleParams
from serve_app.errors import TesseraError
from serve_app.imaging.inspect import inspect
from serve_app.imaging.provenance import read_provenance
from serve_app.imaging.spaces import SRGB
from serve_app.imaging.worker import profile_name_contained
from serve_app.imaging.xmp import read_properties
from serve_app.models.catalog import DESCRIPTION_FILE, SHIPPED, read_model_info
from serve_app.settings import ImageLimits

MOST_BYTES = 2**30
"""Files are read whole; this holds a result of 200 MP in 16 bits, and is far above what a server takes."""

_LIMITS = ImageLimits(upload_bytes=MOST_BYTES, source_pixels=2**62)
_JXL = (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a")  # written, but not read as a source
_BY_NUMBERS = "none, but colours named by numbers"
_NO_PLAIN_CHARACTER = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_NOT_REPEATED = ("preset",)  # what it stood for is there with its own names


async def inspect_file(arguments: argparse.Namespace) -> Exit:
    """Prints a file's facts.

    Raises:
        UsageError: the file cannot be read, or is larger than `MOST_BYTES`.
        RequestError: it is no picture that Tessera reads or writes.
    """
    path = Path(arguments.file)
    data = _read(path)
    facts = _facts(data, arguments.file)
    provenance = read_provenance(data)
    command = None if provenance is None else repeat(provenance, arguments.spell)
    warnings = [] if provenance is None else differences(provenance)
    if arguments.json:
        told = {"file": str(path)} | facts | {"provenance": provenance, "command": command}
        print(json.dumps(told | {"warnings": warnings}))
        return Exit.DONE
    size = f"{facts['width']}x{facts['height']} px" if facts["width"] else "size not read"
    depth = f"{facts['bit_depth']} bits" if facts["bit_depth"] else "depth not read"
    profile = _plain(facts["profile"] or "not read")
    print(f"{path}: {facts['format']}, {size}, {depth}, profile {profile}")
    if provenance is None:
        print("no provenance: not made by Tessera, or its metadata was taken out")
        return Exit.DONE
    for name, value in provenance.items():
        print(_plain(f"{name}: {value if isinstance(value, str) else json.dumps(value)}"))
    if command:
        print(_plain(f"again: {command}"))
    for warning in warnings:
        print(_plain(f"warning: {warning}"))
    return Exit.DONE


def _plain(text: str) -> str:
    return _NO_PLAIN_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", text)


def differences(provenance: Mapping[str, Any]) -> list[str]:
    """What is not here as it was where the result was made, so that the same command may make another picture.

    Of models only the shipped are looked at: who wrote the file shall not have paths opened or hubs asked.

    Args:
        provenance: As it was read; anybody may have written it.

    Returns:
        A sentence for each: Tessera's version, and the revision of the model.
    """
    found = []
    version, name, ran = (provenance.get(fact) for fact in ("version", "model", "revision"))
    if version is not None and version != __version__:
        found.append(f"made by Tessera {version}; this is {__version__}")
    shipped = {path.parent.name: path.parent for path in SHIPPED.glob(f"*/{DESCRIPTION_FILE}")}
    if ran is not None and isinstance(name, str) and name in shipped:
        here = read_model_info(shipped[name]).revision
        if ran != here:
            found.append(f"made with revision {ran} of {name}; here it is {here}")
    return found


def repeat(provenance: Mapping[str, Any], spell: Callable[[str], str]) -> str | None:
    """The command that makes the result again from its source.

    Args:
        provenance: As it was read; anybody may have written it, so everything is quoted.
        spell: The option of a parameter.

    Returns:
        A line for a shell, with IN for the source and OUT for the result; None where no parameters are known.
    """
    given = provenance.get("parameters")
    if not isinstance(given, dict):
        return None
    words = ["tessera", "upscale", "IN", "-o", "OUT"]
    for name in UpscaleParams.model_fields:
        value = given.get(name)
        if name in _NOT_REPEATED or value in (None, "", []):
            continue
        if name == "controls":
            words += [word for control in value for word in ("--control", _control(control))]
        elif name == "lora":
            words += ["--lora", f"{value}:{given.get('lora_scale', 1)}"]
        elif name != "lora_scale":
            words.append(
                f"{spell(name)}={str(value).lower() if isinstance(value, bool) else value}"
            )
    return shlex.join(words)


def _control(control: Any) -> str:
    if not isinstance(control, dict):
        return str(control)
    return ":".join(str(control.get(part, "")) for part in ("name", "scale", "start", "end"))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path}: larger than {MOST_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def _facts(data: bytes, name: str) -> dict[str, Any]:
    if data.startswith(_JXL):
        sides = read_properties(data)
        told = [sides.get(side, "") for side in ("ImageWidth", "ImageLength")]
        width, height = (int(text) if text.isdecimal() else None for text in told)
        facts = {"format": "jxl", "width": width, "height": height}
        return facts | {"bit_depth": None, "profile": None}
    header = inspect(data, _LIMITS, name)
    return {
        "format": header.format.value,
        "width": header.width,
        "height": header.height,
        "bit_depth": header.bit_depth,
        "profile": _profile(data) if header.space in (None, SRGB) else _BY_NUMBERS,
    }


def _profile(data: bytes) -> str | None:
    """The name of the file's profile; `sRGB` where it has none, None where it could not be read."""
    try:
        return profile_name_contained(data, _LIMITS)
    except TesseraError:
        return None
