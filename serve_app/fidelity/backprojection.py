"""Back-projection: moves a result until, scaled down again, it shows its source.

A network that invents detail also drifts in brightness, colour and edges. What it may not change is what the
source already says, and that is checkable without knowing the truth. This module refuses to know how
the result was made, tiles, and transparency.
"""

from __future__ import annotations

import numpy as np

from serve_app.resample import Pixels, resize

_NO_EFFECT_SCALE = 1.0
_FULL_EFFECT_SCALE = 2.0


def backproject(result: Pixels, source: Pixels, rounds: int, strength: float = 1.0) -> Pixels:
    """Adds back, round by round, what the scaled-down result lacks of its source.

    One round is `x += s * enlarge(source - shrink(x))`. `s` is `strength` tapered by the scale, linearly from
    0 at scale 1 to all of it at scale 2: at scale 1 the source is the only picture that shrinks to
    itself, so untapered rounds would undo all that the network did, and near scale 1 nearly all. Below
    scale 1 nothing is added either.

    Args:
        result: (H, W, 3) float32, about [0, 1]; it is not changed.
        source: (h, w, 3) float32, [0, 1].
        rounds: 0 or more; 3 bring a x4 result above 45 dB LR-PSNR.
        strength: 0 to 1; how much of the lack one round adds at scale 2 and above. Less leaves noise and
            compression marks of the source outside.

    Returns:
        (H, W, 3) float32 in [0, 1]; clipped once, at the end, so that rounds do not fight the clip.

    Raises:
        ValueError: if `rounds` is negative, `strength` is outside 0 to 1, or the channels differ.

    Source:
        M. Irani and S. Peleg, "Improving resolution by image registration", 1991.
    """
    if rounds < 0 or not 0 <= strength <= 1:
        raise ValueError(f"rounds {rounds} must be 0 or more and strength {strength} within 0 to 1")
    if result.shape[2:] != source.shape[2:]:
        raise ValueError(f"the channels of {result.shape} and {source.shape} differ")
    height, width = result.shape[:2]
    share = np.float32(strength * _taper(result.shape, source.shape))
    moved = result.astype(np.float32)
    for _ in range(rounds if share > 0 else 0):
        lack = source - resize(moved, *source.shape[:2])
        lack *= share
        moved += resize(lack, height, width)
    return np.clip(moved, 0, 1, out=moved)


def _taper(result_shape: tuple[int, ...], source_shape: tuple[int, ...]) -> float:
    scale = min(result_shape[0] / source_shape[0], result_shape[1] / source_shape[1])
    share = (scale - _NO_EFFECT_SCALE) / (_FULL_EFFECT_SCALE - _NO_EFFECT_SCALE)
    return min(max(share, 0.0), 1.0)
