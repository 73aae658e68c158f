"""Is noise told from texture, and are JPEG's blocks seen? What `fidelity.noise` finds where the truth is known.

`python -m benchmarks.noise` judges held-out photographs and drawings, clean and with known faults, and writes
the tables of `docs/measurements/noise.md` between its marks. It knows neither models nor results.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.quality import insert
from benchmarks.quality_sources import WORK, as_jpeg, photographs, with_noise
from serve_app.fidelity.noise import SourceFaults, judge_source
from serve_app.levels import Pixels, to_levels
from training import heldout, sources
from training.metrics import shrink

PAGE = Path("docs/measurements/noise.md")
Fault = Callable[[Pixels], Pixels]
WHOLE_REDUCTION = 2  # the photographs are compressed files: halved, little of that is left


def gray_noise(sigma: float) -> Fault:
    """Adds normal noise of `sigma` of 255 that is the same in all channels."""

    def draw(random: np.random.Generator, picture: Pixels) -> Pixels:
        return np.asarray(random.normal(0, sigma, (*picture.shape[:2], 1)), np.float32)

    return _added(draw)


def light_noise(sigma: float) -> Fault:
    """Adds noise whose variance grows with the light, as a sensor's; `sigma` of 255 at middle gray."""

    def draw(random: np.random.Generator, picture: Pixels) -> Pixels:
        light = np.sqrt(np.maximum(picture, 1 / 255) * 2)
        return np.asarray(random.normal(0, sigma, picture.shape) * light, np.float32)

    return _added(draw)


def soft_noise(sigma: float) -> Fault:
    """Adds noise of `sigma` of 255 that neighbours share, as a camera's own processing leaves it."""

    def draw(random: np.random.Generator, picture: Pixels) -> Pixels:
        height, width, channels = picture.shape
        white = random.normal(0, 2 * sigma, (height + 1, width + 1, channels))
        four = white[1:, 1:] + white[1:, :-1] + white[:-1, 1:] + white[:-1, :-1]
        return np.asarray(four / 4, np.float32)

    return _added(draw)


def _added(draw: Callable[[np.random.Generator, Pixels], Pixels]) -> Fault:
    def worse(picture: Pixels) -> Pixels:
        noisy = picture * 255 + draw(np.random.default_rng(0), picture)
        return np.asarray(np.round(np.clip(noisy, 0, 255)) / 255, np.float32)

    return worse


FAULTS: dict[str, tuple[float, Fault]] = {
    "clean": (0, lambda picture: picture),
    **{f"noise, {sigma}": (sigma, with_noise(sigma)) for sigma in (2, 5, 10, 20)},
    **{f"gray noise, {sigma}": (sigma, gray_noise(sigma)) for sigma in (5, 10)},
    **{f"noise by light, {sigma}": (sigma, light_noise(sigma)) for sigma in (5, 10)},
    "soft noise, 5": (5, soft_noise(5)),
    **{f"JPEG {quality}": (0, as_jpeg(quality)) for quality in (95, 85, 60, 30)},
    "noise, 5, then JPEG 85": (5, lambda picture: as_jpeg(85)(with_noise(5)(picture))),
}
"""By name: the noise, of 255, and how it comes into a picture."""


def pictures(photos: Path | None) -> dict[str, list[Pixels]]:
    """The clean pictures, (h, w, 3) in [0, 1], by kind."""
    crops = [photograph.original for photograph in photographs(photos)]
    every = sources.pictures(photos or sources.fetch_packages(WORK))
    whole = [np.asarray(picture.pixels() / 255, np.float32) for picture in heldout.split(every)[1]]
    return {
        "128 px": [shrink(crop, 4) for crop in crops],
        "256 px": [shrink(crop, 2) for crop in crops],
        "whole": [shrink(picture, WHOLE_REDUCTION) for picture in whole],
        "drawn": drawings(),
    }


def drawings() -> list[Pixels]:
    """Pages of text on white, cream and black, pixel art, and plain shapes."""
    pages = [
        _page(size, *inks) for size in (10, 16, 32) for inks in ((0, 255), (20, 245), (230, 0))
    ]
    random = np.random.default_rng(0)
    art = [
        random.integers(0, 4, (256 // side, 256 // side, 3)).repeat(side, 0).repeat(side, 1) / 3
        for side in (3, 4, 8)
    ]
    return [np.asarray(picture, np.float32) for picture in (*pages, *art, _shapes())]


def _page(size_px: int, ink: int, ground: int) -> Pixels:
    page = Image.new("L", (512, 384), ground)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size_px)
    for row, top in enumerate(range(8, 370, size_px + 4)):
        pen.text(
            (8 - row % 5, top), "Six quick foxes vex a lazy judge; 1234567890. " * 2, ink, font
        )
    return np.asarray(np.asarray(page, np.float32)[..., None].repeat(3, 2) / 255, np.float32)


def _shapes() -> Pixels:
    shapes = Image.new("RGB", (320, 240), (190, 200, 215))
    pen = ImageDraw.Draw(shapes)
    pen.ellipse((30, 20, 190, 180), (210, 90, 60))
    pen.rectangle((150, 110, 290, 210), (60, 110, 90), (20, 20, 20), 3)
    return np.asarray(np.asarray(shapes) / 255, np.float32)


def tables(found: Mapping[str, Mapping[str, Sequence[SourceFaults]]]) -> tuple[str, str]:
    """Renders what was found, by fault and kind of picture: the noise and the blocks, as Markdown."""
    kinds = list(next(iter(found.values())))
    head = "| | " + " | ".join(kinds) + " |\n" + "|---" * (len(kinds) + 1) + "|\n"
    noise, blocks = [], []
    for name, by_kind in found.items():
        told = [[255 * faults.noise for faults in by_kind[kind]] for kind in kinds]
        cells = [f"{_spread(values, 1)}{_right(values, FAULTS[name][0])}" for values in told]
        noise.append(f"| {name} | " + " | ".join(cells) + " |")
        cells = [_spread([faults.blocking for faults in by_kind[kind]], 2) for kind in kinds]
        blocks.append(f"| {name} | " + " | ".join(cells) + " |")
    return head + "\n".join(noise), head + "\n".join(blocks)


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _right(values: Sequence[float], sigma: float) -> str:
    """How many are right: within a third of the noise, or below 1.5 where there is none."""
    right = [abs(value - sigma) <= sigma / 3 if sigma else value < 1.5 for value in values]
    return f", {sum(right)} of {len(right)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Judges all pictures with all faults, and writes the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="unpacked packages; fetched if absent")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    clean = pictures(options.photos)
    found: dict[str, dict[str, list[SourceFaults]]] = {}
    for name, (_, worse) in FAULTS.items():
        found[name] = {
            kind: [judge_source(to_levels(worse(picture))) for picture in group]
            for kind, group in clean.items()
        }
    page = options.page.read_text() if options.page.exists() else "# Noise\n"
    for name, text in zip(("noise", "blocks"), tables(found), strict=True):
        print(text, flush=True)
        page = insert(page, name, text)
    options.page.write_text(page)


if __name__ == "__main__":
    main()
