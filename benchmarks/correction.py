"""Measures what tying a result to its source costs: `python -m benchmarks.correction`.

The correction of `fidelity.correction`, fed in bands of several heights, against the same rounds of
back-projection done the plain way, on the large grid and at once (`fidelity.backprojection`). One core; the
runs alternate, and the least of each counts. Prints Markdown.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from serve_app.choices import ColorFix
from serve_app.fidelity.backprojection import backproject
from serve_app.fidelity.correction import Correction
from serve_app.fidelity.report import Measuring
from serve_app.levels import Levels, Pixels, from_levels, to_levels

SIDE_PX, SCALE, ROUNDS = 256, 4, 3
BANDS = (1024, 256, 128, 64)
REPEATS = 15


def correct(source: Levels, result: Pixels, band_rows: int) -> None:
    """Corrects a whole result whose rows come in bands."""
    height, width = result.shape[:2]
    correction = Correction(source, height, width, 1.0, ROUNDS, ColorFix.WAVELET)
    given = 0
    for top in range(0, height, band_rows):
        given += sum(map(len, correction.add(result[top : top + band_rows])))
    if given != height:
        raise RuntimeError(f"{given} of {height} rows were given")


def measure(source: Levels, result: Pixels) -> None:
    """Measures a whole result with a seam on each axis, in bands of 64 rows."""
    height, width = result.shape[:2]
    measuring = Measuring(source, height, width, [height // 2], [width // 2])
    for top in range(0, height, 64):
        measuring.add(result[top : top + 64], top)
    measuring.end()


def main() -> None:
    """Measures and prints."""
    random = np.random.default_rng(0)
    source = to_levels(random.random((SIDE_PX, SIDE_PX, 3), dtype=np.float32))
    result = random.random((SIDE_PX * SCALE, SIDE_PX * SCALE, 3), dtype=np.float32)
    pixels = from_levels(source)
    ways: dict[str, Callable[[], object]] = {
        "rounds on the large grid": lambda: backproject(result, pixels, ROUNDS, 1.0),
        **{
            f"rounds and wavelet, bands of {rows} rows": lambda rows=rows: correct(  # type: ignore[misc]
                source, result, rows
            )
            for rows in BANDS
        },
        "measuring": lambda: measure(source, result),
    }
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(REPEATS):
        for name, way in ways.items():
            started = time.process_time()
            way()
            least[name] = min(least[name], time.process_time() - started)
    first = next(iter(least.values()))
    print("| what | of the first |\n|---|---|")
    for name, seconds in least.items():
        print(f"| {name} | {seconds / first:.2f} |")


if __name__ == "__main__":
    main()
