"""`tessera upscale` of several pictures through a server: sent as jobs, each result fetched as it comes.

Stopped at any moment, the same command goes on: nothing becomes two jobs, nothing is fetched twice.
It refuses to know how jobs are shown.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from serve_app.cli.board import Board
from serve_app.cli.exits import Exit
from serve_app.cli.files import Picture, check_target, sidecar_of, write_whole
from serve_app.cli.following import Fetching, follow
from serve_app.cli.journal import Chunk, Journal, divided
from serve_app.cli.outcomes import Outcomes, reason_of, told_of
from serve_app.cli.watch import Silent, Table, View
from serve_app.client import JobsClient, Json, ServerUnreachable, Submission
from serve_app.contracts import Priority, UpscaleParams
from serve_app.errors import (
    NotFound,
    QuotaExceeded,
    RequestError,
    TesseraError,
    TooLarge,
    UnsupportedImage,
)

_PLACES = 4  # downloads at once
_UNSUPPORTED = "urn:tessera:problem:unsupported-image"


async def through_job(
    client: JobsClient,
    tasks: Sequence[tuple[Picture, Path]],
    params: UpscaleParams,
    control_images: Mapping[str, bytes],
    arguments: argparse.Namespace,
) -> Exit:
    """Upscales pictures through jobs, or goes on with it.

    Args:
        client: Of a server that has jobs.
        tasks: Pictures with their targets.
        params: Of all, the output's format explicit.
        control_images: The caller's, by their control's name.
        arguments: Of the command.

    Raises:
        UsageError: what was remembered of it is damaged.
        TesseraError: the server is away for too long, or refuses the parameters or so many pictures.
    """
    board = Board()
    view: View = Silent()
    if arguments.progress or (arguments.progress is None and sys.stderr.isatty()):
        view = Table(board, sys.stderr)
    lane = Priority(arguments.priority or Priority.BATCH)
    shared = Submission([], params, control_images, lane)
    journal = Journal.open(Path(arguments.output), _digest(client, tasks, shared), client.server)
    outcomes = Outcomes(view.say, arguments.json)
    run = _Run(client, tasks, shared, journal, outcomes, board, view, arguments)
    try:
        with view:
            await run.work()
    except OSError as error:  # the journal's
        raise TesseraError(reason_of(error)) from None
    except (asyncio.CancelledError, TesseraError) as error:
        run.tell_how_to_go_on(refused=isinstance(error, RequestError))
        raise
    return outcomes.exit(len(tasks))


class _Run:
    """One command at work."""

    def __init__(
        self,
        client: JobsClient,
        tasks: Sequence[tuple[Picture, Path]],
        shared: Submission,
        journal: Journal,
        outcomes: Outcomes,
        board: Board,
        view: View,
        arguments: argparse.Namespace,
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._shared = shared
        self._journal = journal
        self._outcomes = outcomes
        self._board = board
        self._view = view
        self._overwrite: bool = arguments.overwrite
        self._with_report: bool = arguments.report
        self._fetching = Fetching(client, arguments.concurrency or _PLACES, self._overwrite)
        self._fetched: set[int] = set()
        self._followed: set[asyncio.Task[None]] = set()
        self._all_fetched = True

    async def work(self) -> None:
        """Sends what is not sent, and follows all, to the end."""
        jobs = [chunk.job for chunk in self._journal.chunks if chunk.job is not None]
        if jobs:
            self._view.say(f"tessera: goes on with {', '.join(jobs)}", sys.stderr)
            _sweep([target for _, target in self._tasks])
        lost = await self._lost()
        self._plan(lost)
        try:
            async with asyncio.TaskGroup() as group:
                for chunk in self._journal.chunks:
                    if chunk.job is not None:
                        self._follow(group, chunk)
                await self._send_all(group)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        if self._all_fetched:
            self._journal.remove()

    def tell_how_to_go_on(self, refused: bool) -> None:
        """Says what becomes of the jobs, and how to get their results; refused without one, nothing goes on."""
        jobs = [chunk.job for chunk in self._journal.chunks if chunk.job is not None]
        for job in jobs:
            hint = f"`tessera jobs watch {job} --server {self._client.server}`"
            print(f"tessera: the server goes on with {job}; {hint} shows it", file=sys.stderr)
        if jobs:
            print("tessera: the same command goes on where this one stopped", file=sys.stderr)
        elif refused:
            self._journal.remove()

    async def _lost(self) -> set[int]:
        """Takes out jobs that the server does not know any more; gives their pictures."""
        lost: set[int] = set()
        for chunk in list(self._journal.chunks):
            try:
                if chunk.job is not None:
                    await self._client.job(chunk.job)
            except NotFound:
                self._view.say(f"tessera: {chunk.job} is not there any more", sys.stderr)
                self._journal.chunks.remove(chunk)
                lost.update(chunk.pictures)
        return lost

    def _plan(self, lost: set[int]) -> None:
        """Divides what is in no job among new ones; a picture of a lost one that has its target was fetched."""
        known = {place for chunk in self._journal.chunks for place in chunk.pictures}
        sources = {picture.source.resolve() for picture, _ in self._tasks}
        wanted: list[tuple[int, int]] = []
        for place, (picture, target) in enumerate(self._tasks):
            if place in known or (place in lost and target.exists() and not self._overwrite):
                continue
            try:
                check_target(
                    target, sources, overwrite=self._overwrite, with_report=self._with_report
                )
                wanted.append((place, picture.source.stat().st_size))
            except OSError as error:
                self._outcomes.failure(picture, reason_of(error))
        for pictures in divided(wanted):
            self._journal.add(uuid.uuid4().hex, pictures)

    async def _send_all(self, group: asyncio.TaskGroup) -> None:
        waiting = deque(chunk for chunk in self._journal.chunks if chunk.job is None)
        while waiting:
            chunk = waiting.popleft()
            self._journal.save()
            try:
                job = await self._send(chunk)
            except QuotaExceeded:
                if not self._followed:
                    raise
                waiting.appendleft(chunk)  # once a job of ours has ended there is room
                await asyncio.wait(self._followed, return_when=asyncio.FIRST_COMPLETED)
            except (RequestError, OSError) as error:
                waiting.extendleft(reversed(self._without(chunk, error)))
            else:
                chunk.job = job["id"]
                self._journal.save()
                told = f"tessera: {chunk.job} has {len(chunk.pictures)} of the pictures"
                self._view.say(told, sys.stderr)
                self._follow(group, chunk)

    async def _send(self, chunk: Chunk) -> Json:
        files = [self._tasks[place][0].source for place in chunk.pictures]
        return await self._client.submit(replace(self._shared, pictures=files, key=chunk.key))

    def _without(self, chunk: Chunk, error: RequestError | OSError) -> list[Chunk]:
        """What to send in place of what was refused: halves, until the picture at fault is alone."""
        alone = len(chunk.pictures) == 1
        for_pictures = isinstance(error, OSError | TooLarge) and not _of_control(error)
        if not alone and not for_pictures:
            raise error
        self._journal.chunks.remove(chunk)
        if alone:
            picture, _ = self._tasks[chunk.pictures[0]]
            unsupported = isinstance(error, UnsupportedImage)
            tell = self._outcomes.unsupported if unsupported else self._outcomes.failure
            tell(picture, reason_of(error))
            return []
        half = len(chunk.pictures) // 2
        halves = (chunk.pictures[:half], chunk.pictures[half:])
        return [self._journal.add(uuid.uuid4().hex, pictures) for pictures in halves]

    def _follow(self, group: asyncio.TaskGroup, chunk: Chunk) -> None:
        job_id = str(chunk.job)

        def on_item(number: int, status: str, problem: Json | None) -> None:
            place = chunk.pictures[number]
            picture, _ = self._tasks[place]
            reason = (problem or {}).get("detail") or status
            if status == "succeeded":
                if place not in self._fetched:
                    self._fetched.add(place)
                    group.create_task(self._fetch(job_id, number, place))
            elif (problem or {}).get("type") == _UNSUPPORTED:
                self._outcomes.unsupported(picture, reason)
            else:
                self._outcomes.failure(picture, reason)

        async def to_its_end() -> None:
            await follow(self._client, job_id, self._board, self._view, on_item)

        task = group.create_task(to_its_end())
        self._followed.add(task)
        task.add_done_callback(self._followed.discard)

    async def _fetch(self, job_id: str, number: int, place: int) -> None:
        picture, target = self._tasks[place]
        try:
            item, new = await self._fetching.fetch(job_id, number, lambda _: target)
            facts = told_of(picture, target, _facts(job_id, item))
            sidecar = sidecar_of(target)
            if self._with_report and (new or not sidecar.exists()):
                text = json.dumps(facts, indent=2) + "\n"
                await asyncio.to_thread(write_whole, sidecar, text.encode())
        except ServerUnreachable:
            raise
        except (TesseraError, OSError) as error:
            self._all_fetched = False
            self._outcomes.failure(picture, reason_of(error))
        else:
            if new:
                self._outcomes.success(facts)


def _of_control(error: RequestError | OSError) -> bool:
    field = error.field if isinstance(error, RequestError) else None
    return (field or "").startswith("control_image")


def _digest(client: JobsClient, tasks: Sequence[tuple[Picture, Path]], shared: Submission) -> str:
    """Of all that makes this command another one: server, files, targets and parameters."""
    files = []
    for picture, target in tasks:
        found = picture.source.stat() if picture.source.exists() else None
        stamp = (found.st_size, found.st_mtime_ns) if found else None
        files.append([str(picture.source.resolve()), stamp, target.name])
    controls = {n: hashlib.sha256(data).hexdigest() for n, data in shared.control_images.items()}
    params = shared.params.model_dump(mode="json", exclude_none=True)
    whole = [client.server, files, params, shared.priority, controls]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _facts(job_id: str, item: Json) -> Json:
    """What an answer of `POST /v1/upscale` would tell of the result."""
    result = item["result"]
    sizes = {name: result[name] for name in ("media_type", "width", "height")}
    return {**sizes, **result["details"], "request_id": f"{job_id}-{item['number']}"}


def _sweep(targets: Sequence[Path]) -> None:
    """Takes away what a killed client left half written."""
    names = {(target.parent, target.name) for target in targets}
    for folder in {target.parent for target in targets}:
        for part in folder.glob(".*.part"):
            if (folder, part.name[1:].rsplit(".", 2)[0]) in names:
                part.unlink(missing_ok=True)
