"""Measure upscaled pictures against their originals, and against plain resizing.

The rivals are bicubic, Lanczos, and Lanczos with the same back-projection that the model gets: most
of the gain over plain resizing comes from back-projection, so only the last is an honest one.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import structural_similarity
from ssimulacra2 import compute_ssimulacra2

from serve_app.fidelity.backprojection import backproject
from serve_app.fidelity.measures import lr_psnr
from serve_app.resample import resize

Picture = NDArray[np.float32]
MEASURES = ("psnr_y", "ssim", "ssimulacra2", "gmsd", "sharpness", "lr_psnr")
HIGHER_IS_BETTER = {"psnr_y": True, "ssim": True, "ssimulacra2": True, "gmsd": False}
_BORDER_PX = 4
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def measure(result: Picture, original: Picture, source: Picture) -> dict[str, float]:
    """Measure one result.

    Args:
        result: shape (height, width, 3), values 0 to 1; rounded to 8 bits before it is judged.
        original: what it should be, same shape.
        source: the small picture that it was made from.

    Returns:
        PSNR and SSIM of luma, SSIMULACRA2, GMSD (lower is better), gradient energy over the
        original's (nearer to 1 is better), and PSNR of the shrunk result against the source.
    """
    result = np.asarray(np.round(np.clip(result, 0, 1) * 255) / 255, np.float32)
    inner = (slice(_BORDER_PX, -_BORDER_PX),) * 2
    luma, truth = (result @ _LUMA)[inner], (original @ _LUMA)[inner]
    return {
        "psnr_y": -10 * float(np.log10(np.mean((luma - truth) ** 2))),
        "ssim": float(
            structural_similarity(
                luma,
                truth,
                data_range=1.0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
        ),
        "ssimulacra2": float(compute_ssimulacra2(_file(original), _file(result))),
        "gmsd": gmsd(luma, truth),
        "sharpness": _gradient_energy(luma) / _gradient_energy(truth),
        "lr_psnr": lr_psnr(result, source),
    }


def gmsd(luma: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Gradient magnitude similarity deviation of two lumas of 0 to 1; 0 is equal.

    Source: Xue et al. 2014, with its constant of 170 for values to 255.
    """
    first, second = (_prewitt(_halved(picture.astype(np.float64))) for picture in (luma, truth))
    constant = 170 / 255**2
    similarity = (2 * first * second + constant) / (first**2 + second**2 + constant)
    return float(similarity.std())


def shrink(original: Picture, scale: float) -> Picture:
    """Make the small source: bicubic, antialiased, rounded to 8 bits."""
    height, width = (round(side / scale) for side in original.shape[:2])
    small = np.clip(resize(original, height, width), 0, 1)
    return np.asarray(np.round(small * 255) / 255, np.float32)


def rivals(source: Picture, height: int, width: int, rounds: int) -> dict[str, Picture]:
    """Plain resizings of a source, and Lanczos with back-projection."""
    lanczos = np.stack([_lanczos(source[..., c], height, width) for c in range(3)], axis=-1)
    return {
        "bicubic": resize(source, height, width),
        "Lanczos": lanczos,
        "Lanczos + bp": backproject(np.clip(lanczos, 0, 1), source, rounds),
    }


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Median of every measure over pictures."""
    return {name: float(np.median([row[name] for row in rows])) for name in MEASURES}


def as_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Render medians as a Markdown table, one line per method."""
    head = ("", "PSNR-Y", "SSIM", "SSIMULACRA2", "GMSD", "sharpness", "LR-PSNR")
    digits = (2, 4, 2, 4, 3, 1)
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for method, row in results.items():
        values = [f"{row[name]:.{n}f}" for name, n in zip(MEASURES, digits, strict=True)]
        lines.append(f"| {method} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _lanczos(channel: NDArray[np.float32], height: int, width: int) -> Any:
    image = Image.fromarray(np.ascontiguousarray(channel))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _file(picture: Picture) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(buffer, "PNG", compress_level=0)
    buffer.seek(0)
    return buffer


def _gradient_energy(luma: NDArray[np.float32]) -> float:
    return float(np.mean(np.diff(luma, axis=0) ** 2) + np.mean(np.diff(luma, axis=1) ** 2))


def _halved(luma: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = luma.shape[0] // 2 * 2, luma.shape[1] // 2 * 2
    cells = luma[:height, :width].reshape(height // 2, 2, width // 2, 2)
    return np.asarray(cells.mean(axis=(1, 3)))


def _prewitt(luma: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = luma[:-2] + luma[1:-1] + luma[2:]
    columns = luma[:, :-2] + luma[:, 1:-1] + luma[:, 2:]
    across, down = (rows[:, 2:] - rows[:, :-2]) / 3, (columns[2:] - columns[:-2]) / 3
    return np.hypot(across, down)
