"""Before and after at 100 %, side by side, for the eye: the source enlarged by bicubic, and the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from serve_app.levels import Pixels
from serve_app.resample import resize

_GAP_PX = 8


def write_sheet(path: Path, source: Pixels, result: Pixels) -> None:
    """Writes a JPEG of both, with a white line between them.

    Args:
        path: Of the file.
        source: (h, w, 3), [0, 1].
        result: (H, W, 3), [0, 1].
    """
    plain = resize(source, *result.shape[:2])
    gap = np.ones((result.shape[0], _GAP_PX, 3), np.float32)
    both = np.clip(np.concatenate([plain, gap, result], axis=1), 0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(both * 255).astype(np.uint8)).save(path, quality=90, optimize=True)
