"""Judge a model folder on the held-out crops and lay results side by side for the eye.

Medians go to a JSON file that the model card quotes; the sheets are for looking at 100 % and 300 %.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve_app.fidelity.backprojection import backproject
from training import metrics, sampling
from training.metrics import Picture

_SHEET_METHODS = ("bicubic", "Lanczos + bp", "model + bp", "original")
_ZOOM = 3
_ZOOM_PX = 128


def settings_of(folder: Path) -> tuple[sampling.Settings, int]:
    """Read the default sampling settings and back-projection rounds from ``tessera.json``."""
    described: dict[str, Any] = json.loads((folder / "tessera.json").read_text())
    defaults = described["defaults"]
    settings = sampling.Settings(
        steps=defaults["steps"],
        guidance=defaults["guidance_scale"],
        control_scale=defaults["control_scale"],
        tile_px=described["tile_px"],
        overlap_px=described["overlap_px"],
    )
    return settings, int(described["backprojection_rounds"])


def evaluate(
    folder: Path,
    originals: Sequence[NDArray[np.uint8]],
    scale: float = 4,
    changes: dict[str, Any] | None = None,
    with_rivals: bool = True,
) -> tuple[dict[str, dict[str, float]], list[dict[str, Picture]]]:
    """Upscale every held-out crop and measure it.

    Args:
        folder: model folder.
        originals: held-out crops, 8 bits.
        scale: how much smaller the source is.
        changes: sampling settings that differ from the folder's defaults.
        with_rivals: measure plain resizing too.

    Returns:
        Medians by method, and for each crop the pictures by method.
    """
    model = sampling.load(folder)
    settings, rounds = settings_of(folder)
    settings = replace(settings, **(changes or {}))
    rows: dict[str, list[dict[str, float]]] = {}
    shown: list[dict[str, Picture]] = []
    for bytes_ in originals:
        original = np.asarray(bytes_ / 255, np.float32)
        height, width = original.shape[:2]
        source = metrics.shrink(original, scale)
        results = metrics.rivals(source, height, width, rounds) if with_rivals else {}
        results["model"] = sampling.upscale(model, source, height, width, settings)
        results["model + bp"] = backproject(results["model"], source, rounds)
        for method, result in results.items():
            rows.setdefault(method, []).append(metrics.measure(result, original, source))
        shown.append({**results, "original": original})
    return {method: metrics.medians(found) for method, found in rows.items()}, shown


def at_other_settings(
    folder: Path, originals: Sequence[NDArray[np.uint8]]
) -> dict[str, dict[str, float]]:
    """Medians at other guidances, step counts and scales than the defaults, back-projected."""
    table: dict[str, dict[str, float]] = {}
    default = settings_of(folder)[0]
    trials: list[dict[str, Any]] = [{"guidance": value} for value in (1.0, default.guidance, 7.0)]
    trials += [{"steps": value} for value in (2, 4)]
    for changes in trials:
        found, _ = evaluate(folder, originals, changes=changes, with_rivals=False)
        name = " ".join(f"{setting} {value:g}" for setting, value in changes.items())
        table[name] = found["model + bp"]
    for scale in (2.0, 3.0):
        found, _ = evaluate(folder, originals, scale=scale)
        for method in ("Lanczos + bp", "model + bp"):
            table[f"{method}, x{scale:g}"] = found[method]
    return table


def verdict(table: dict[str, dict[str, float]]) -> dict[str, bool]:
    """Say of each promise whether the medians keep it."""
    ours, rival = table["model + bp"], table["Lanczos + bp"]
    kept: dict[str, bool] = {}
    for name, higher in metrics.HIGHER_IS_BETTER.items():
        for plain in ("bicubic", "Lanczos"):
            better = ours[name] > table[plain][name]
            kept[f"{name} better than {plain}"] = (
                better if higher else ours[name] < table[plain][name]
            )
    kept["ssimulacra2 better than Lanczos + bp"] = ours["ssimulacra2"] > rival["ssimulacra2"]
    kept["sharpness nearer to 1 than Lanczos + bp"] = abs(1 - ours["sharpness"]) < abs(
        1 - rival["sharpness"]
    )
    kept["psnr_y at most 0.2 dB under Lanczos + bp"] = ours["psnr_y"] > rival["psnr_y"] - 0.2
    return kept


def seconds_per_tile(folder: Path, repeats: int = 5, tile_px: int = 256) -> float:
    """Best wall time of one tile at the defaults: encode, all steps, decode; float32."""
    settings, _ = settings_of(folder)
    settings = replace(settings, tile_px=tile_px)
    model = sampling.load(folder)
    source = np.random.default_rng(0).random((tile_px // 4, tile_px // 4, 3), np.float32)
    times: list[float] = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        sampling.upscale(model, source, tile_px, tile_px, settings)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def write_sheets(shown: Sequence[dict[str, Picture]], folder: Path) -> None:
    """Write one sheet per crop at 100 %, and one of its most detailed corner at 300 %."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, results in enumerate(shown):
        pictures = [_bytes(results[name]) for name in _SHEET_METHODS]
        Image.fromarray(np.concatenate(pictures, axis=1)).save(folder / f"{index:02d}.png")
        top, left = _most_detailed(results["original"])
        part = slice(top, top + _ZOOM_PX), slice(left, left + _ZOOM_PX)
        zoomed = [
            np.kron(picture[part], np.ones((_ZOOM, _ZOOM, 1), np.uint8)) for picture in pictures
        ]
        Image.fromarray(np.concatenate(zoomed, axis=1)).save(folder / f"{index:02d}_zoom.png")


def _most_detailed(picture: Picture) -> tuple[int, int]:
    best, place = -1.0, (0, 0)
    for top in range(0, picture.shape[0] - _ZOOM_PX + 1, _ZOOM_PX // 2):
        for left in range(0, picture.shape[1] - _ZOOM_PX + 1, _ZOOM_PX // 2):
            part = picture[top : top + _ZOOM_PX, left : left + _ZOOM_PX]
            detail = float(np.abs(np.diff(part, axis=0)).mean())
            if detail > best:
                best, place = detail, (top, left)
    return place


def _bytes(picture: Picture) -> NDArray[np.uint8]:
    return np.asarray(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8))
