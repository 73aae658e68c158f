"""`tessera jobs`: submit, list, watch, get, cancel, retry.

It refuses to know HTTP, and how a watched job is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from serve_app.cli.board import Board
from serve_app.cli.controls import read_pictures
from serve_app.cli.exits import Exit, UsageError
from serve_app.cli.files import find_pictures
from serve_app.cli.following import Fetching, follow
from serve_app.cli.outcomes import reason_of
from serve_app.cli.watch import Silent, View, plain, view_of
from serve_app.client import JobsClient, Json, ServerUnreachable, Submission
from serve_app.contracts import Priority
from serve_app.errors import NotFound, TesseraError

_PLACES = 4  # downloads at once


async def submit_job(arguments: argparse.Namespace) -> Exit:
    """Sends pictures as one job, prints its id and, if wished, watches it.

    Raises:
        UsageError: there is nothing to send, or a file cannot be read.
        TesseraError: what the server answered.
    """
    params = arguments.params(arguments)
    control_images = read_pictures(arguments.controls)
    pictures, skipped = find_pictures(arguments.inputs, arguments.recursive)
    for path in skipped:
        print(f"tessera: {path}: skipped, not a picture", file=sys.stderr)
    if not pictures:
        raise UsageError("there is no picture in what was named")
    submission = Submission(
        [picture.source for picture in pictures],
        params,
        control_images,
        Priority(arguments.priority or Priority.BATCH),
        arguments.idempotency_key or uuid.uuid4().hex,
        arguments.webhook_url,
    )
    async with _client(arguments) as client:
        if not await client.offered():
            raise NotFound(f"{client.server} has no jobs")
        try:
            job = await client.submit(submission)
        except OSError as error:
            raise UsageError(reason_of(error)) from None
        print(json.dumps(job) if arguments.json else job["id"], flush=True)
        if not arguments.watch:
            return Exit.DONE
        return await _watch(client, job["id"], arguments)


async def list_jobs(arguments: argparse.Namespace) -> Exit:
    """Prints the newest jobs."""
    async with _client(arguments) as client:
        jobs = await client.jobs(arguments.status, arguments.limit)
    if arguments.json:
        print(json.dumps(jobs))
    else:
        for job in jobs:
            print(_summary(job))
    return Exit.DONE


async def watch_job(arguments: argparse.Namespace) -> Exit:
    """Shows a job until it has ended, and fetches its results as they come where a folder is named."""
    async with _client(arguments) as client:
        return await _watch(client, arguments.id, arguments)


async def get_job(arguments: argparse.Namespace) -> Exit:
    """Prints a job, and its items or its results if wished."""
    async with _client(arguments) as client:
        job = await client.job(arguments.id)
        items = []
        if arguments.items or arguments.output:
            items = [item async for item in client.items(job["id"])]
        if arguments.json:
            print(json.dumps(job | ({"items": items} if arguments.items else {})))
        else:
            print(_summary(job))
            for item in items if arguments.items else []:
                print(_item_line(item))
        if arguments.output is None:
            return Exit.DONE
        return await _get_results(client, job, items, arguments)


async def cancel_job(arguments: argparse.Namespace) -> Exit:
    """Gives a job up, and prints it as it is then."""
    async with _client(arguments) as client:
        return _told(await client.cancel(arguments.id), arguments)


async def retry_job(arguments: argparse.Namespace) -> Exit:
    """Has failed and cancelled pictures tried again, and prints the job as it is then."""
    async with _client(arguments) as client:
        return _told(await client.retry(arguments.id), arguments)


def _client(arguments: argparse.Namespace) -> JobsClient:
    return JobsClient(arguments.server, tenant=arguments.tenant)


def _told(job: Json, arguments: argparse.Namespace) -> Exit:
    print(json.dumps(job) if arguments.json else _summary(job))
    return Exit.DONE


async def _watch(client: JobsClient, job_id: str, arguments: argparse.Namespace) -> Exit:
    board = Board()
    view = view_of(board, sys.stdout, as_json=arguments.json)
    after = 0 if arguments.json and arguments.after is None else arguments.after
    results: _Results | None = None
    if arguments.output is not None:
        items = [item async for item in client.items(job_id)]
        results = _Results(client, job_id, Path(arguments.output), items, arguments, view)
    try:
        with view:
            async with asyncio.TaskGroup() as group:

                def on_item(number: int, status: str, problem: Json | None) -> None:
                    if results is not None and status == "succeeded":
                        group.create_task(results.fetch(number))

                job = await follow(client, job_id, board, view, on_item, after)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    except asyncio.CancelledError:
        hint = f"tessera jobs watch {job_id} --server {client.server}"
        print(f"tessera: the server goes on with it; `{hint}` shows it again", file=sys.stderr)
        raise
    failed = job["status"] != "succeeded" or (results is not None and results.failed)
    return Exit.FAILED if failed else Exit.DONE


async def _get_results(
    client: JobsClient, job: Json, items: list[Json], arguments: argparse.Namespace
) -> Exit:
    output = Path(arguments.output)
    if output.suffix.lower() == ".zip" and not output.is_dir():
        if output.exists() and not arguments.overwrite:
            raise UsageError(f"{output} exists; --overwrite replaces it")
        try:
            await client.download_all(job["id"], output)
        except OSError as error:
            raise TesseraError(reason_of(error)) from None
        return Exit.DONE if job["status"] == "succeeded" else Exit.FAILED
    results = _Results(client, job["id"], output, items, arguments, Silent())
    there = [item["number"] for item in items if item["status"] == "succeeded"]
    try:
        async with asyncio.TaskGroup() as group:
            for number in there:
                group.create_task(results.fetch(number))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    complete = len(there) == len(items) and not results.failed
    return Exit.DONE if complete else Exit.FAILED


class _Results:
    """Results of one job on their way into a folder."""

    def __init__(
        self,
        client: JobsClient,
        job_id: str,
        folder: Path,
        items: Iterable[Json],
        arguments: argparse.Namespace,
        view: View,
    ) -> None:
        self.failed = 0
        self._job_id = job_id
        self._folder = folder
        self._stems = stems_of(items)
        self._as_json: bool = arguments.json
        self._fetching = Fetching(client, _PLACES, arguments.overwrite)
        self._view = view
        self._begun: set[int] = set()

    async def fetch(self, number: int) -> None:
        """Fetches one; what is at fault is told."""
        if number in self._begun:
            return
        self._begun.add(number)
        try:
            item, new = await self._fetching.fetch(self._job_id, number, self._place)
        except ServerUnreachable:
            raise
        except (TesseraError, OSError) as error:
            self.failed += 1
            self._view.say(f"tessera: {self._stems[number]}: {reason_of(error)}", sys.stderr)
        else:
            if new and not self._as_json:
                self._view.say(f"{plain(item['name'])} -> {self._place(item)}", sys.stdout)

    def _place(self, item: Json) -> Path:
        suffix = re.sub("[^a-z0-9]", "", item["result"]["media_type"].split("/")[-1])
        return self._folder / f"{self._stems[item['number']]}.{suffix}"


def stems_of(items: Iterable[Json]) -> dict[int, str]:
    """What each item's file is called, without its suffix: as its source, or numbered where two are alike."""
    stems = {}
    for item in items:
        stem = PurePosixPath(str(item["name"]).replace("\\", "/")).stem
        stems[item["number"]] = re.sub(r"[^\w .()-]", "_", stem).strip(" .") or "picture"
    if len({stem.casefold() for stem in stems.values()}) == len(stems):
        return stems
    digits = len(str(len(stems) - 1))
    return {number: f"{number:0{digits}}-{stem}" for number, stem in stems.items()}


def _summary(job: Json) -> str:
    counts = job["counts"]
    told = ", ".join(
        f"{counts[status]} {status}"
        for status in ("queued", "running", "failed", "cancelled")
        if counts[status]
    )
    done = f"{counts['succeeded']} of {counts['total']} done" + (f", {told}" if told else "")
    return f"{job['id']}  {job['created_at']}  {job['priority']}  {job['status']}: {done}"


def _item_line(item: Json) -> str:
    told = f"{item['number']}  {plain(item['name'])}  {item['status']}"
    if item["result"] is not None:
        return f"{told}  {item['result']['width']}x{item['result']['height']}"
    if item["error"] is not None:
        return f"{told}: {plain(str(item['error'].get('detail')))}"
    return told + (f"  {item['tiles_done']}/{item['tiles_total']}" if item["tiles_total"] else "")
