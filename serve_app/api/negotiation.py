"""Chooses what to answer with from a request's `Accept` (RFC 9110, section 12.5.1).

It refuses to know pictures: it compares media types. The most specific range decides a type's weight; the
heaviest type wins; among equals the one named more exactly, then the picture, then JSON, then the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from serve_app.api.problems import NotAcceptable
from serve_app.contracts import OutputFormat

JSON = "application/json"
EVENTS = "text/event-stream"


class Shape(Enum):
    """How a result is sent."""

    PICTURE = "picture"
    JSON = "json"
    EVENTS = "events"


@dataclass(frozen=True)
class Choice:
    """What to answer with; `output_format` is None where the caller leaves it to the model."""

    shape: Shape
    output_format: OutputFormat | None


@dataclass(frozen=True)
class _Range:
    media: str  # "image/png", "image/*" or "*/*"
    weight: float

    @property
    def precision(self) -> int:
        return 2 - self.media.count("*")

    def admits(self, media_type: str) -> bool:
        main = media_type.split("/")[0]
        return self.media in (media_type, f"{main}/*", "*/*")


def choose(accept: str | None, output_format: OutputFormat | None) -> Choice:
    """Chooses the answer's shape and the picture's format.

    Args:
        accept: The `Accept` header; absent or empty admits everything.
        output_format: The format that the request's parameters ask for.

    Raises:
        NotAcceptable: if nothing that can be sent is admitted.
    """
    if not accept or not accept.strip():
        return Choice(Shape.PICTURE, output_format)
    ranges = _parse(accept)
    formats = [output_format] if output_format else list(OutputFormat)
    ranks = {kind: _rank(ranges, kind.media_type) for kind in formats}
    best = max(ranks.values())
    offers = [(best, Shape.PICTURE)]
    offers += [(_rank(ranges, JSON), Shape.JSON), (_rank(ranges, EVENTS), Shape.EVENTS)]
    (weight, _), shape = max(offers, key=lambda offer: offer[0])
    if weight <= 0:
        allowed = ", ".join([*(kind.media_type for kind in formats), JSON, EVENTS])
        raise NotAcceptable(
            f"Accept: {accept!r} admits nothing that can be sent", field="Accept", allowed=allowed
        )
    if shape is not Shape.PICTURE:
        return Choice(shape, output_format)
    equal = [kind for kind in formats if ranks[kind] == best]
    return Choice(shape, output_format if len(equal) == len(OutputFormat) else equal[0])


def _rank(ranges: list[_Range], media_type: str) -> tuple[float, int]:
    """A media type's weight and how exactly it was named; (0, -1) if nothing admits it."""
    admitting = [found for found in ranges if found.admits(media_type)]
    if not admitting:
        return 0.0, -1
    decisive = max(admitting, key=lambda found: found.precision)
    return decisive.weight, decisive.precision


def _parse(accept: str) -> list[_Range]:
    ranges = []
    for member in accept.split(","):
        media, *options = (part.strip().lower() for part in member.split(";"))
        weights = [value[2:] for value in options if value.startswith("q=")]
        try:
            weight = float(weights[0]) if weights else 1.0
        except ValueError:
            continue  # a member that cannot be read admits nothing
        if 0 <= weight <= 1 and media.count("/") == 1:
            ranges.append(_Range(media, weight))
    return ranges
