"""How fast a long body is handed on: as fast as its way to the client may be, and no faster.

Ray Serve's queue between an application and its proxy has no bound and nobody tells how long it is, so a body
that was handed on at once would wait in it whole. This module refuses to know what is sent.
"""

from __future__ import annotations

import asyncio

_BURST_BYTES = 16 * 2**20  # what most pictures weigh goes without delay
_BURST_PAUSE_S = 0.002  # enough on a machine that is not busy: 500 MB/s in pieces of a MiB
_BYTES_PER_S = (
    100e6  # past that, what a proxy that shares its core with denoisers still keeps up with
)


class Pace:
    """The pauses of one body."""

    def __init__(self) -> None:
        self._sent = 0

    async def after(self, piece: bytes) -> None:
        """Waits as long as is due after a piece that was handed on."""
        self._sent += len(piece)
        slow = self._sent > _BURST_BYTES
        await asyncio.sleep(len(piece) / _BYTES_PER_S if slow else _BURST_PAUSE_S)
