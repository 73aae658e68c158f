"""How good are the embedded model's x4 results, by fidelity, denoise and colour fix, against plain resizing?

`python -m benchmarks.quality` runs held-out photographs through the whole product and writes the tables of
`docs/measurements/quality.md` between its marks; the words around them are written by hand.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import quality_steps
from benchmarks.quality_product import Product
from benchmarks.quality_sheets import write_sheet
from benchmarks.quality_sources import SCALE, WORSE, Photograph, photographs
from serve_app.levels import Pixels
from training.metrics import as_table, measure, medians, rivals

PAGE = Path("docs/measurements/quality.md")
ROUNDS = 3  # of the rival's back-projection: the embedded model's own
CLEAN: dict[str, dict[str, Any]] = {
    "Tessera, fidelity 0": {"fidelity": 0.0},
    "Tessera, fidelity 0, no colour fix": {"fidelity": 0.0, "color_fix": "none"},
    "Tessera, fidelity 0.5": {"fidelity": 0.5},
    "Tessera, default": {},
    "Tessera, default, no colour fix": {"color_fix": "none"},
    "Tessera, fidelity 1": {"fidelity": 1.0},
}
FAULTY: dict[str, dict[str, Any]] = {
    "Tessera, fidelity 0": {"fidelity": 0.0},
    "Tessera, default": {},
    "Tessera, fidelity 1": {"fidelity": 1.0},
    "Tessera, denoise 0.5": {"denoise": 0.5},
    "Tessera, denoise 1, fidelity 0": {"denoise": 1.0, "fidelity": 0.0},
    "Tessera, denoise 1": {"denoise": 1.0},
    "Tessera, denoise 1, fidelity 1": {"denoise": 1.0, "fidelity": 1.0},
}


def compare(
    product: Product,
    pictures: Sequence[Photograph],
    arms: dict[str, dict[str, Any]],
    fault: str | None = None,
) -> str:
    """Medians of every arm and of plain resizing; LR-PSNR is always against the clean source.

    Args:
        product: What upscales.
        pictures: The photographs.
        arms: Parameters by name.
        fault: Key of `WORSE`; None leaves the sources clean.

    Returns:
        A Markdown table.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    for picture in pictures:
        clean = picture.source
        source = WORSE[fault](clean) if fault else clean
        height, width = picture.original.shape[:2]
        results: dict[str, Pixels] = rivals(source, height, width, ROUNDS)
        results |= {name: product.upscale(source, **params) for name, params in arms.items()}
        for name, result in results.items():
            rows.setdefault(name, []).append(measure(result, picture.original, clean))
    found = as_table({name: medians(row) for name, row in rows.items()})
    print(f"{fault or 'clean'}\n{found}", flush=True)
    return found


def insert(page: str, name: str, text: str) -> str:
    """Puts a text between the page's marks of that name; appends marks that are not there yet."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    block = f"{begin}\n\n{text}\n\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: block, page)
    return f"{page.rstrip()}\n\n{block}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and writes the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="unpacked packages; fetched if absent")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--every", type=int, default=1, help="take each n-th photograph")
    parser.add_argument("--only", default="clean,faulty,steps", help="parts, or sheets")
    parser.add_argument("--sheets", type=Path, default=Path("quality-sheets"))
    options = parser.parse_args(arguments)
    parts = options.only.split(",")
    pictures = photographs(options.photos, options.every)
    fewer = pictures[::2] or pictures
    tables: dict[str, str] = {}
    with Product() as product:
        if "clean" in parts:
            tables["clean sources"] = compare(product, pictures, CLEAN)
        if "faulty" in parts:
            tables |= {fault: compare(product, fewer, FAULTY, fault) for fault in WORSE}
        if "steps" in parts:
            tables["adaptive steps"] = quality_steps.table(product, fewer)
        if "sheets" in parts:
            for number, picture in enumerate(pictures):
                result = product.upscale(picture.source)
                write_sheet(options.sheets / f"{number:02d}.jpg", picture.source, result)
    if not tables:
        return
    tables["machine"] = (
        f"{len(pictures)} photographs for clean sources, {len(fewer)} for the others, x{SCALE}; "
        f"{os.cpu_count()} CPU cores, {platform.machine()}."
    )
    page = options.page.read_text() if options.page.exists() else "# Quality\n"
    for name, text in tables.items():
        page = insert(page, name, text)
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(page)


if __name__ == "__main__":
    main()
