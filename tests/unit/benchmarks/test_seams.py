"""The seam benchmark sees a seam where one is, and none where none is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import seams
from benchmarks.seams import ARMS, seam_energy, table, with_own_seed
from serve_app.contracts import UpscaleParams, resolve
from serve_app.engine.task import TileInputs, TileTask
from serve_app.levels import Pixels
from serve_app.models.catalog import find_model, read_model_info
from serve_app.resample import resize
from serve_app.tiling.geometry import Size, Tile
from serve_app.tiling.grid import make_plan

PLAN = make_plan(Size(528, 528), 272, 16, 8)
INFO = read_model_info(find_model("mini"))


def slope(side: int) -> Pixels:
    line = np.linspace(0.1, 0.8, side, dtype=np.float32)
    return np.repeat((line[:, None] + line[None])[..., None] / 2, 3, axis=2)


class PlainProduct:
    """Enlarges plainly; steps down in the middle where tiles do not overlap."""

    info = INFO

    def upscale(
        self, source: Pixels, change: Any = None, told: dict[str, Any] | None = None, **_: Any
    ) -> Pixels:
        result = resize(source, source.shape[0] * 4, source.shape[1] * 4)
        if (told or {}).get("overlap_px") == 0:
            result[result.shape[0] // 2 :] += 0.05
        return result


def test_a_plain_enlargement_is_1():
    source = slope(132)
    assert seam_energy(resize(source, 528, 528), source, PLAN) == pytest.approx(1)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_step_at_a_border_is_seen(axis: int):
    source = slope(132)
    result = resize(source, 528, 528)
    np.moveaxis(result, axis, 0)[264:] += 0.05
    assert seam_energy(result, source, PLAN) > 2


def test_a_step_elsewhere_lowers_it():
    source = slope(132)
    result = resize(source, 528, 528)
    result[100:] += 0.05
    assert seam_energy(result, source, PLAN) < 1


def test_each_tile_has_a_seed_of_its_own():
    params = resolve(UpscaleParams(seed=1), INFO, drawn_seed=0)
    tasks = [TileTask("r", index, Tile(0, 0, 272, 272), params) for index in range(3)]
    seeds = {with_own_seed(task, TileInputs([])).params.seed for task in tasks}
    assert len(seeds) == 3
    assert 1 not in seeds


def test_every_arm_is_in_the_table():
    product: Any = PlainProduct()
    rows = table(product, {"slope": slope(528)}, [1]).splitlines()[2:]
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [cell[1] for cell in cells] == [arm.name for arm in ARMS]
    energies = {cell[1]: float(cell[3]) for cell in cells}
    assert energies["Tessera"] == pytest.approx(1, abs=0.02)
    assert energies["no overlap"] > 2
    counts = {cell[1]: int(cell[2]) for cell in cells}
    assert counts["Tessera"] == 4
    assert counts["one single pass"] == 1


def test_the_page_keeps_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Opened(PlainProduct):
        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(seams, "Product", Opened)
    monkeypatch.setattr(seams, "pictures", lambda _: {"slope": slope(528)})
    page = tmp_path / "seams.md"
    page.write_text(
        "# Seams\n\nWords before.\n\n<!-- seams -->\nold\n<!-- end of seams -->\n\nWords after.\n"
    )
    seams.main(["--page", str(page), "--steps", "1"])
    text = page.read_text()
    assert "old" not in text
    assert "| 1 | Tessera | 4 |" in text
    assert text.startswith("# Seams\n\nWords before.")
    assert text.endswith("Words after.\n")
