"""The rows of `benchmarks.gpu`, their comparison with diffusers, and the page that they are written to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

BASELINE = "diffusers"


@dataclass
class Measured:
    """One row: times in seconds, memory in GiB (0 where it is not told), fractions of one.

    `computed` is the share of steps whose stack was computed; the cache skips the others.
    """

    arm: str
    tile_px: int
    batch: int
    step_s: float = 0.0
    tile_s: float = 0.0
    memory_gib: float = 0.0
    roofline: float = 0.0
    against_diffusers: float = 0.0
    computed: float = 1.0
    note: str = ""


def compare(rows: list[Measured]) -> None:
    """Fills in how many times as fast as diffusers' pipeline each row is, at its tile and batch."""
    base = {(row.tile_px, row.batch): row.tile_s for row in rows if row.arm == BASELINE}
    for row in rows:
        reference = base.get((row.tile_px, row.batch), 0.0)
        row.against_diffusers = reference / row.tile_s if row.tile_s else 0.0


def page(rows: list[Measured], machine: str, roofline_flops: float, model: str) -> str:
    """The report, in Markdown."""
    lines = [
        "# FLUX.1-dev with its ControlNet on a GPU",
        "",
        f"`make bench-gpu` on {machine}: {model}, random weights, 28 steps. Matrix products reach "
        f"{roofline_flops / 1e12:.0f} TFLOP/s there, and a fraction of the roofline is of that. `times` is how "
        "many times as fast as diffusers' own pipeline, at the same tile and batch in the same run. How many "
        "steps the cache computes depends on the weights, which are not real ones here.",
        "",
        "| run as | tile, px | batch | step, s | tile, s | peak, GiB | roofline | computed | times |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.note:
            lines.append(
                f"| {row.arm} | {row.tile_px or ''} | {row.batch or ''} | {row.note} | | | | | |"
            )
            continue
        lines.append(
            f"| {row.arm} | {row.tile_px} | {row.batch} | {row.step_s:.3f} | {row.tile_s:.2f} | "
            f"{row.memory_gib:.1f} | {row.roofline:.2f} | {row.computed:.2f} | {row.against_diffusers:.2f} |"
        )
    return "\n".join([*lines, ""])


def write(
    report: Path,
    rows: list[Measured],
    machine: str,
    roofline_flops: float,
    model: str,
    order: list[str],
) -> None:
    """Writes the report, and its rows beside it for the next invocation to add to.

    Args:
        report: The page.
        rows: Of this invocation; older ones of the same machine stay where these have none.
        machine: What they were measured on.
        roofline_flops: What matrix products reach there.
        model: What was measured, in words.
        order: Of the ways to run.
    """
    memory = report.with_suffix(".json")
    fresh = {(row.arm, row.tile_px, row.batch) for row in rows}
    kept = [r for r in _remembered(memory, machine) if (r.arm, r.tile_px, r.batch) not in fresh]
    rows = sorted([*kept, *rows], key=lambda r: (order.index(r.arm), r.tile_px, r.batch))
    saved = {"machine": machine, "rows": [asdict(row) for row in rows]}
    memory.write_text(json.dumps(saved, indent=1) + "\n")
    report.write_text(page(rows, machine, roofline_flops, model))


def _remembered(path: Path, machine: str) -> list[Measured]:
    """The rows of earlier invocations on the same machine."""
    if not path.is_file():
        return []
    kept = json.loads(path.read_text())
    return [Measured(**row) for row in kept["rows"]] if kept["machine"] == machine else []
