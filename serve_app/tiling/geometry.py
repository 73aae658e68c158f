"""Geometry as named types, height before width, in pixels. Each concept exists once, here."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.contracts import ResolvedParams
from serve_app.errors import InvalidParameter

_LEAST_SCALE, _MOST_SCALE = 1.0, 8.0


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """A height and a width, px."""

    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A rectangle on the canvas, px: its top left corner and its size."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The first row below the tile."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The first column right of the tile."""
        return self.left + self.width

    @property
    def rows(self) -> slice:
        """Indexes an array's rows."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Indexes an array's columns."""
        return slice(self.left, self.right)

    def shrunk(self, factor: int) -> Tile:
        """The same rectangle on a grid `factor` times as coarse, such as the latents'.

        Raises:
            ValueError: if a coordinate is no multiple of `factor`.
        """
        if any(value % factor for value in (self.top, self.left, self.height, self.width)):
            raise ValueError(f"{self} does not lie on a grid of {factor}")
        return Tile(
            self.top // factor, self.left // factor, self.height // factor, self.width // factor
        )


def result_size(source: Size, params: ResolvedParams) -> Size:
    """The size of the result: each side times the scale, rounded to the nearest pixel.

    Args:
        source: The source's size after its orientation is applied.
        params: With `scale`, or with `width` and/or `height` to fit inside.

    Raises:
        InvalidParameter: if width/height ask for a scale outside 1 to 8.
    """
    if params.scale is not None:
        return Size(_rounded(source.height * params.scale), _rounded(source.width * params.scale))
    fits: dict[str, float] = {}
    if params.width is not None:
        fits["width"] = params.width / source.width
    if params.height is not None:
        fits["height"] = params.height / source.height
    field = min(fits, key=lambda name: fits[name])
    scale = fits[field]
    if not _LEAST_SCALE <= scale <= _MOST_SCALE:
        side = getattr(source, field)
        raise InvalidParameter(
            f"{field}: {getattr(params, field)} px would scale this {source} picture by {scale:.3g}",
            field=field,
            allowed=f"{side} to {side * int(_MOST_SCALE)}",
        )
    return Size(_rounded(source.height * scale), _rounded(source.width * scale))


def _rounded(length: float) -> int:
    return max(1, int(length + 0.5))
