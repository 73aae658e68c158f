"""A job followed to its end, and its results fetched into files as they come.

It refuses to know what files are called, and how a job is shown.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from serve_app.cli.board import Board
from serve_app.cli.watch import View
from serve_app.client import ENDED, JobsClient, Json

OnItem = Callable[[int, str, Json | None], None]
"""Told of an item that has ended: its number, its status and, where there is one, the problem."""

_ENDS = {f"item.{status}": status for status in ENDED}


async def follow(
    client: JobsClient,
    job_id: str,
    board: Board,
    view: View,
    on_item: OnItem,
    after: int | None = None,
) -> Json:
    """Follows a job to its end.

    Args:
        client: Of its server.
        job_id: Which.
        board: Is kept up to date.
        view: Shows it.
        on_item: Told of each item that has ended, before or meanwhile; of some twice.
        after: Sequence number of the last event that is not shown; None shows those from now on.

    Returns:
        The job as it is then.

    Raises:
        TesseraError: as `JobsClient.events`.
    """
    job = await client.job(job_id)
    items = [item async for item in client.items(job_id)]
    board.add(job, items)
    view.show(job_id, None)
    for item in items:
        if item["status"] in ENDED:
            on_item(item["number"], item["status"], item["error"])
    del items  # there may be ten thousand
    async for event in client.events(job_id, job["last_event"] if after is None else after):
        board.take(job_id, event)
        view.show(job_id, event)
        if event.kind in _ENDS and event.sequence > job["last_event"]:
            on_item(event.data["number"], _ENDS[event.kind], event.data.get("error"))
    return await client.job(job_id)


class Fetching:
    """Writes results to files, a few at once; what is there already is not fetched again.

    Args:
        client: Of the job's server.
        places: Downloads at once.
        overwrite: True replaces files that are not the result.
    """

    def __init__(self, client: JobsClient, places: int, overwrite: bool) -> None:
        self._client = client
        self._places = asyncio.Semaphore(places)
        self._overwrite = overwrite

    async def fetch(
        self, job_id: str, number: int, place: Callable[[Json], Path]
    ) -> tuple[Json, bool]:
        """Fetches one result.

        Args:
            job_id: Of which job.
            number: Of the item.
            place: Says where the item's result belongs.

        Returns:
            The item, and whether its file was not there yet.

        Raises:
            FileExistsError: another file is there.
            OSError: as the file system says.
            TesseraError: what the server answered.
        """
        async with self._places:
            item = await self._client.item(job_id, number)
            target = place(item)
            if target.exists():
                if await asyncio.to_thread(_digest, target) == item["result"]["sha256"]:
                    return item, False
                if not self._overwrite:
                    raise FileExistsError(f"{target} exists; --overwrite replaces it")
            await self._client.download(job_id, number, target)
            return item, True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
