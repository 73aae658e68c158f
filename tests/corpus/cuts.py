"""Files cut short, and files with bits turned: what a bad line or a bad disk makes of a good picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.corpus.case import EITHER, REFUSED, Case, bad
from tests.corpus.originals import FORMATS, original

_CUT_AT_PERCENT = (1, 5, 12, 25, 40, 55, 70, 85, 93)
_FLIPPED = 8


def cases() -> Iterator[Case]:
    """Each format cut at many places, and bent at seeded ones."""
    for kind in FORMATS:
        whole = original(kind)
        for percent in _CUT_AT_PERCENT:
            cut = whole[: max(1, len(whole) * percent // 100)]
            yield bad("truncated", f"{kind}-{percent}-percent", cut, REFUSED)
        yield bad("truncated", f"{kind}-magic-only", whole[:12], REFUSED)
        yield bad("truncated", f"{kind}-last-byte", whole[:-1], EITHER)
        for seed in range(_FLIPPED):
            yield bad("bits flipped", f"{kind}-{seed}", _flipped(whole, seed), EITHER)
        yield bad("bits flipped", f"{kind}-header", _header_flipped(whole), EITHER)


def _flipped(whole: bytes, seed: int) -> bytes:
    """One to eight bits anywhere, more of them with a higher seed."""
    draw = np.random.default_rng(seed)
    data = np.frombuffer(whole, np.uint8).copy()
    for at in draw.integers(4, len(data), seed + 1):
        data[at] ^= 1 << int(draw.integers(8))
    return data.tobytes()


def _header_flipped(whole: bytes) -> bytes:
    """Sixteen bytes behind the magic, all bits of them."""
    return whole[:12] + bytes(byte ^ 0xFF for byte in whole[12:28]) + whole[28:]
