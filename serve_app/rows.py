"""A picture's tiles, a row at a time: cut, sent, joined.

The next row is cut while one is denoised, and rows that are done are joined from top to bottom, so that what is
in flight is bounded whatever the picture's size. It refuses to know what becomes of a tile that is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from serve_app.parts import Finishing, PixelsRef
from serve_app.tiles import TileSender, task_group
from serve_app.tiling.grid import Plan

Row = list[asyncio.Task[PixelsRef]]
Cut = Callable[[int], Awaitable[Sequence[Sequence[PixelsRef]]]]


async def denoise_rows(
    plan: Plan, cut: Cut, sender: TileSender, finishing: Finishing, most: int
) -> None:
    """All tiles of a picture, a bounded number at once. The first failure ends the others.

    Args:
        plan: Where the tiles lie.
        cut: From a row's number, from the top, to its tiles' crops, from the left.
        sender: Denoises one tile.
        finishing: Takes the rows that are done.
        most: Tiles that are sent at once.
    """
    # rows whose tiles are out: enough for all that may be in flight, and one that is being joined
    rows: asyncio.Queue[Row] = asyncio.Queue(1 + -(-most // len(plan.lefts)))
    async with task_group() as group:
        joining = group.create_task(_join(rows, len(plan.tops), finishing))
        await _send(plan, cut, sender, rows, most, group)
        await joining


async def _send(
    plan: Plan,
    cut: Cut,
    sender: TileSender,
    rows: asyncio.Queue[Row],
    most: int,
    group: asyncio.TaskGroup,
) -> None:
    """Sends row after row; while one is sent the next is cut, and nothing beyond it."""
    places = asyncio.Semaphore(most)
    across, count, tiles = len(plan.lefts), len(plan.tops), plan.tiles

    async def crops_of(row: int) -> deque[Sequence[PixelsRef]]:
        return deque(await cut(row))

    async def one(index: int, crops: Sequence[PixelsRef]) -> PixelsRef:
        try:
            return await sender.send(index, tiles[index], crops)
        finally:
            places.release()

    ahead = group.create_task(crops_of(0))
    for row in range(count):
        strip = await ahead
        if row + 1 < count:
            ahead = group.create_task(crops_of(row + 1))
        running: Row = []
        for index in range(row * across, (row + 1) * across):
            await places.acquire()
            running.append(group.create_task(one(index, strip.popleft())))
        await rows.put(running)


async def _join(rows: asyncio.Queue[Row], count: int, finishing: Finishing) -> None:
    """Hands rows of tiles on from top to bottom, each as soon as it is whole."""
    for _ in range(count):
        running = await rows.get()
        await finishing.add([await task for task in running])
