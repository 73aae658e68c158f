"""What do fewer steps on flat tiles save, and what do they cost?

The steps of a tile are set on its way to the engine, by the mean gradient of the control crop that it gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.quality_product import Change, Product
from benchmarks.quality_sources import Photograph
from serve_app.engine.task import TileInputs, TileTask
from serve_app.levels import Levels, from_levels
from training.metrics import measure, medians

FULL_STEPS = 8
QUANTILES = (0.25, 0.5)
FEW_STEPS = (1, 2, 4)
HEAD = "| steps | steps run | PSNR-Y | SSIMULACRA2 | GMSD | LR-PSNR |"


def detail_of(crop: Levels) -> float:
    """A tile's mean gradient, in levels of 255 a pixel."""
    luma = from_levels(crop).mean(axis=2) * 255
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())


def with_steps(task: TileTask, steps: int) -> TileTask:
    """The task with another number of steps."""
    return replace(task, params=task.params.model_copy(update={"steps": steps}))


def fewer_below(limit: float, few: int) -> Change:
    """Gives tiles of less detail than `limit` a few steps."""

    def change(task: TileTask, inputs: TileInputs) -> TileTask:
        flat = detail_of(inputs.controls[0]) < limit
        return with_steps(task, few) if flat else task

    return change


def table(product: Product, pictures: Sequence[Photograph]) -> str:
    """Measures every arm; a Markdown table."""
    details: list[float] = []

    def note(task: TileTask, inputs: TileInputs) -> TileTask:
        details.append(detail_of(inputs.controls[0]))
        return task

    lines = [HEAD, "|---" * 6 + "|", _row("1", product, pictures, note, 1)]
    lines += [_row(str(n), product, pictures, None, n) for n in (2, 4, FULL_STEPS)]
    for share, limit in zip(QUANTILES, np.quantile(details, QUANTILES), strict=True):
        for few in FEW_STEPS:
            name = f"{FULL_STEPS}, {few} on the flattest {share:.0%} (gradient below {limit:.1f})"
            lines.append(_row(name, product, pictures, fewer_below(limit, few), FULL_STEPS))
    return "\n".join(lines)


def _row(
    name: str,
    product: Product,
    pictures: Sequence[Photograph],
    change: Change | None,
    steps: int,
) -> str:
    run = 0

    def counted(task: TileTask, inputs: TileInputs) -> TileTask:
        nonlocal run
        task = change(task, inputs) if change else task
        run += task.params.steps
        return task

    found = []
    for picture in pictures:
        result = product.upscale(picture.source, counted, steps=steps)
        found.append(measure(result, picture.original, picture.source))
    row = medians(found)
    line = (
        f"| {name} | {run} | {row['psnr_y']:.2f} | {row['ssimulacra2']:.2f} | {row['gmsd']:.4f} "
        f"| {row['lr_psnr']:.1f} |"
    )
    print(line, flush=True)
    return line
