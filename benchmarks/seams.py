"""Do seams show? Seam energy of Tessera against other ways to tile, and against one single pass.

`python -m benchmarks.seams` upscales five pictures x4 with the embedded model through the whole product, and
writes the table of `docs/measurements/seams.md`. Seam energy is the mean gradient of luma in the bands where
tiles fade into each other (of two pixels where they do not), over the mean gradient elsewhere, divided by
the same of the plainly enlarged source: 1 is the picture's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import insert
from benchmarks.quality_product import SEED, Change, Product
from benchmarks.quality_sources import SCALE
from benchmarks.seams_pictures import SIDE_PX, pictures
from serve_app.engine.task import TileInputs, TileTask
from serve_app.levels import Pixels
from serve_app.resample import resize
from serve_app.tiling.geometry import Size
from serve_app.tiling.grid import Plan, make_plan
from training.metrics import shrink

PAGE = Path("docs/measurements/seams.md")
STEPS = (1, 4)
LIMIT = 1.05
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Arm:
    """One way to tile.

    Attributes:
        name: In the table.
        told: What the model says of itself, where it differs from the embedded model's own.
        change: Of a tile's task on its way to the engine.
        judged_as: What `told` was for the arm whose borders it is judged at; None is its own.
    """

    name: str
    told: dict[str, Any] = field(default_factory=dict)
    change: Change | None = None
    judged_as: dict[str, Any] | None = None


def with_own_seed(task: TileTask, _: TileInputs) -> TileTask:
    """Noise of its own for each tile, as tools have it that run each tile as a picture."""
    own = task.params.model_copy(update={"seed": SEED + 1000 * (task.index + 1)})
    return replace(task, params=own)


ARMS = (
    Arm("Tessera"),
    Arm("tiles of 272 px, overlap of 16 px", {"tile_px": 272, "overlap_px": 16}),
    Arm("overlap, own noise for each tile", change=with_own_seed),
    Arm("no overlap", {"tile_px": SIDE_PX // 2, "overlap_px": 0}),
    Arm(
        "no overlap, own noise",
        {"tile_px": SIDE_PX // 2, "overlap_px": 0},
        with_own_seed,
    ),
    Arm("one single pass", {"tile_px": SIDE_PX}, judged_as={}),
)


def seam_energy(result: Pixels, source: Pixels, plan: Plan) -> float:
    """Gradient at the borders over gradient elsewhere, relative to the plainly enlarged source.

    Args:
        result: (H, W, 3), [0, 1].
        source: (h, w, 3), [0, 1].
        plan: Where the tiles' borders lie.

    Returns:
        1 where borders stand out no more than they do in the enlarged source.
    """
    return _standing_out(result, plan) / _standing_out(resize(source, *result.shape[:2]), plan)


def _standing_out(picture: Pixels, plan: Plan) -> float:
    luma = picture @ _LUMA
    at, elsewhere = [], []
    for steps, origins in (
        (np.diff(luma, axis=0), plan.tops),
        (np.diff(luma.T, axis=0), plan.lefts),
    ):
        found = np.abs(steps).mean(axis=1)
        border = np.zeros(len(found), bool)
        for old, new in pairwise(origins):
            start = new + (old + plan.tile_px - new - plan.overlap_px) // 2
            border[start - 1 : start + max(plan.overlap_px, 1)] = True
        at.append(found[border])
        elsewhere.append(found[~border])
    return float(np.concatenate(at).mean() / np.concatenate(elsewhere).mean())


def measure(product: Product, arm: Arm, source: Pixels, steps: int) -> tuple[float, int]:
    """One arm on one picture: its seam energy, and how many tiles it ran."""
    result = product.upscale(source, arm.change, arm.told, steps=steps)
    count = _plan(product, arm.told, result).count
    judged = arm.told if arm.judged_as is None else arm.judged_as
    return seam_energy(result, source, _plan(product, judged, result)), count


def _plan(product: Product, told: dict[str, Any], result: Pixels) -> Plan:
    info = product.info.model_copy(update=told)
    size = Size(*result.shape[:2])
    return make_plan(size, info.tile_px, info.overlap_px, info.align_px)


def table(product: Product, originals: dict[str, Pixels], steps: Sequence[int]) -> str:
    """Every arm on every picture; a Markdown table."""
    lines = [
        "| steps | way to tile | tiles | " + " | ".join(originals) + " |",
        "|---" * (3 + len(originals)) + "|",
    ]
    for count in steps:
        for arm in ARMS:
            found = [
                measure(product, arm, shrink(picture, SCALE), count)
                for picture in originals.values()
            ]
            cells = " | ".join(f"{energy:.3f}" for energy, _ in found)
            lines.append(f"| {count} | {arm.name} | {found[0][1]} | {cells} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every arm and writes the page's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="unpacked packages; fetched if absent")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--steps", default=",".join(map(str, STEPS)))
    options = parser.parse_args(arguments)
    steps = [int(number) for number in options.steps.split(",")]
    with Product() as product:
        found = table(product, pictures(options.photos), steps)
    page = options.page.read_text() if options.page.exists() else "# Seams\n"
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(insert(page, "seams", found))


if __name__ == "__main__":
    main()
