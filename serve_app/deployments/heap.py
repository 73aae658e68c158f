"""Gives large arrays back to the system as soon as they are freed.

glibc keeps freed blocks of up to 32 MB for the next request, for each thread anew. Ray Serve runs a
deployment's calls on many threads, so a replica that cuts or joins rows of a large picture would hold several
times what it uses. This module refuses to know what the memory is for.
"""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h; set by hand it no longer grows by itself
_LARGE_BYTES = 2 * 2**20


def return_large_blocks() -> None:
    """Sets it for this process; where the C library has no such knob, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
