"""What a decoder's process can be asked for: what it is given, how its answer is judged, what stands for none.

An answer may be a stranger's words, whoever asked: each is judged here or in what is called here, and one that
makes no sense is a `ValueError`. This module refuses to know processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from serve_app.errors import BrokenImage, InvalidParameter, RequestError, TooLarge
from serve_app.imaging.codec import Picture
from serve_app.imaging.frames import Frames, read_frames
from serve_app.imaging.inspect import Header, inspect
from serve_app.imaging.wire import (
    FRAMES,
    NAME,
    PACKET,
    PICTURE,
    ROWS,
    Message,
    SharedMemory,
    read_answer,
    read_samples,
    read_text,
)
from serve_app.imaging.xmp import MOST_XMP_BYTES
from serve_app.levels import Levels
from serve_app.settings import ImageLimits

T = TypeVar("T")

_LONGEST_NAME_BYTES = 4096
PROFILE_FIELD, METADATA_FIELD = "color_profile", "keep_metadata"


@dataclass(frozen=True, slots=True)
class Errand(Generic[T]):
    """One thing that a child is asked for; it remembers nothing of the one before, so any child takes any.

    Attributes:
        request: What is asked.
        given: What the child reads, one behind the other.
        read: Makes the result of what the child said; raises what it raised, or ValueError.
        limits: What it may take in memory and time.
        too_slow: Raised if it takes longer.
        died: Raised if the child ends, or what it says makes no sense.
    """

    request: Message
    given: Sequence[bytes]
    read: Callable[[Message, SharedMemory], T]
    limits: ImageLimits
    too_slow: RequestError
    died: RequestError


def picture(data: bytes, limits: ImageLimits, field: str) -> Errand[Picture]:
    """Asks for a file's picture; raises what its header is refused for."""
    header = inspect(data, limits, field)
    return _of_file(data, limits, field, PICTURE, header, partial(_read_picture, header=header))


def frames(data: bytes, limits: ImageLimits, field: str, count: int) -> Errand[Frames]:
    """Asks for a file's frames; raises what its header is refused for."""
    header = inspect(data, limits, field)
    read = partial(read_frames, header=header, count=count)
    return _of_file(data, limits, field, FRAMES, header, read)


def rows(colour: Levels, icc: bytes, channels: int, limits: ImageLimits) -> Errand[Levels]:
    """Asks for (..., 3) sRGB levels in a profile of 1 or 3 channels; what fails is the profile's fault."""
    request = {"wanted": ROWS, "pixels": colour.size // 3, "channels": channels}
    seconds = f"{limits.decode_timeout_s:g} s"

    def read(message: Message, memory: SharedMemory) -> Levels:
        if "error" in message:  # what it says of why is a stranger's
            raise _not_written("cannot be written to")
        return read_samples(message, memory, (*colour.shape[:-1], channels))

    return Errand(
        request,
        (colour.astype(np.uint16, copy=False).tobytes(), icc),
        read,
        limits,
        too_slow=_not_written(f"takes longer to write to than the limit of {seconds}"),
        died=_not_written("cannot be written to: the converter died of it"),
    )


def packet(source: bytes, facts: Mapping[str, Any], limits: ImageLimits) -> Errand[bytes | None]:
    """Asks for a result's XMP; `facts` are the further arguments of `xmp.written_packet`."""
    told = json.dumps(facts).encode()

    def read(message: Message, memory: SharedMemory) -> bytes | None:
        if "error" in message:
            raise lost
        return read_text(message, memory, MOST_XMP_BYTES)

    lost = InvalidParameter(
        f"{METADATA_FIELD}: the source's XMP cannot be read", field=METADATA_FIELD, allowed="false"
    )
    request = {"wanted": PACKET, "facts_bytes": len(told)}
    return Errand(request, (told, source), read, limits, too_slow=lost, died=lost)


def profile_name(data: bytes, limits: ImageLimits, field: str) -> Errand[str | None]:
    """Asks for the name of a file's profile; raises what its header is refused for."""
    header = inspect(data, limits, field)

    def read(message: Message, memory: SharedMemory) -> str | None:
        found = read_text(message, memory, _LONGEST_NAME_BYTES)
        return None if found is None else found.decode()

    return _of_file(data, limits, field, NAME, header, read)


def _of_file(
    data: bytes,
    limits: ImageLimits,
    field: str,
    wanted: str,
    header: Header,
    read: Callable[[Message, SharedMemory], T],
) -> Errand[T]:
    name, seconds = header.format.upper(), f"{limits.decode_timeout_s:g} s"
    return Errand(
        {"wanted": wanted, "field": field},
        (data,),
        read,
        limits,
        too_slow=TooLarge(
            f"{field}: decoding this {name} file took longer than the limit of {seconds}",
            field=field,
            allowed=f"a file that decodes within {seconds}",
        ),
        died=BrokenImage(
            f"{field}: the decoder died of this {name} file, or of its limit of"
            f" {limits.decode_memory_bytes} bytes",
            field=field,
            allowed="a whole file that decodes within the limit",
        ),
    )


def _read_picture(message: Message, memory: SharedMemory, header: Header) -> Picture:
    found = read_answer(message, memory, header.height * header.width)
    if found.height != header.height:
        raise ValueError("a picture of another shape")
    return found


def _not_written(reason: str) -> InvalidParameter:
    return InvalidParameter(
        f"{PROFILE_FIELD}: the source's profile {reason}", field=PROFILE_FIELD, allowed="srgb"
    )
