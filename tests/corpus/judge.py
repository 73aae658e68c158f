"""Says whether what became of a file is what its case states."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.corpus.case import OK, Case

Samples = NDArray[np.floating]


def fault(
    case: Case, status: int, colour: Samples | None = None, alpha: Samples | None = None
) -> str | None:
    """What is wrong, in words; None if nothing is.

    Args:
        case: The file.
        status: What it was answered with.
        colour: (H, W, 3), 0 to 255, of a result.
        alpha: (H, W), 0 to 255, or None.
    """
    if status not in case.statuses:
        return f"{case.id}: {status}, not one of {sorted(case.statuses)}"
    if status != OK or colour is None:
        return None
    if case.size is not None and colour.shape[:2] != case.size:
        return f"{case.id}: it is {colour.shape[:2]}, not {case.size}"
    if case.picture is None:
        return None
    differs = np.abs(_seen(colour, alpha) - _seen(*_split(case.picture))).mean()
    if differs > case.tolerance:
        return f"{case.id}: it differs by {differs:.2f} levels, more than {case.tolerance}"
    return None


def _split(picture: NDArray[np.uint8]) -> tuple[Samples, Samples | None]:
    wide = picture.astype(np.float64)
    return wide[:, :, :3], wide[:, :, 3] if picture.shape[2] == 4 else None


def _seen(colour: Samples, alpha: Samples | None) -> Samples:
    """Premultiplied colour and alpha, (H, W, 4); what has no alpha is opaque."""
    opaque = np.full(colour.shape[:2], 255.0) if alpha is None else alpha
    return np.dstack([colour * opaque[:, :, None] / 255, opaque])
