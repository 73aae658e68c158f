"""How firmly is a result best tied to its source? Every strength, on clean and on faulty sources.

`python -m benchmarks.quality_strengths` upscales held-out photographs without correction, corrects each result
with every strength, and writes the table of `docs/fidelity.md` between its marks. What `fidelity.noise` would
choose stands beside it. Like the product, but for one thing: no file lies between upscaling and correction.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality import insert
from benchmarks.quality_product import Product
from benchmarks.quality_sources import Photograph, as_jpeg, photographs, with_noise
from serve_app.choices import ColorFix
from serve_app.fidelity.correction import Correction
from serve_app.fidelity.noise import judge_source, lowered
from serve_app.levels import Pixels, to_levels
from training.metrics import measure, medians

PAGE = Path("docs/fidelity.md")
STRENGTHS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
FAULTS: dict[str, Callable[[Pixels], Pixels]] = {
    "clean": lambda source: source,
    **{f"noise, {sigma}": with_noise(sigma) for sigma in (1, 2, 3, 5, 10)},
    **{f"JPEG {quality}": as_jpeg(quality) for quality in (95, 90, 85, 75, 60)},
}


def row(product: Product, pictures: Sequence[Photograph], fault: str) -> str:
    """One line of the table: medians at every strength, and at the one that would be chosen.

    Args:
        product: What upscales.
        pictures: The photographs.
        fault: Key of `FAULTS`.
    """
    found: dict[str, list[dict[str, float]]] = {}
    chosen = []
    for picture in pictures:
        source = FAULTS[fault](picture.source)
        plain = product.upscale(source, fidelity=0.0, color_fix="none")
        own = lowered(product.info.defaults.fidelity, judge_source(to_levels(source)))
        chosen.append(own)
        for name, strength in {**{str(s): s for s in STRENGTHS}, "chosen": own}.items():
            result = corrected(plain, source, strength, product.info.backprojection_rounds)
            found.setdefault(name, []).append(measure(result, picture.original, picture.source))
    cells = [_cell(medians(rows)) for rows in found.values()]
    line = f"| {fault} | " + " | ".join(cells) + f" | {np.median(chosen):.2f} |"
    print(line, flush=True)
    return line


def corrected(result: Pixels, source: Pixels, strength: float, rounds: int) -> Pixels:
    """The result, (H, W, 3), tied to its source with a strength of 0 to 1."""
    height, width = result.shape[:2]
    correction = Correction(to_levels(source), height, width, strength, rounds, ColorFix.WAVELET)
    return np.concatenate(list(correction.add(result)))


def _cell(row: dict[str, float]) -> str:
    return f"{row['psnr_y']:.2f} / {row['ssimulacra2']:.1f} / {row['gmsd']:.4f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every strength on every fault, and writes the page's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="unpacked packages; fetched if absent")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--every", type=int, default=2, help="take each n-th photograph")
    options = parser.parse_args(arguments)
    pictures = photographs(options.photos, options.every)
    head = ["source", *map(str, STRENGTHS), "chosen", "which is"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    with Product() as product:
        lines += [row(product, pictures, fault) for fault in FAULTS]
    page = options.page.read_text() if options.page.exists() else "# Strengths\n"
    options.page.write_text(insert(page, "strengths", "\n".join(lines)))


if __name__ == "__main__":
    main()
