"""`tessera upscale`: each picture is read, sent through an `Upscaler`, and written whole or not at all.

Several pictures for a server that has jobs go through one (`through_job`). It refuses to know whether the
`Upscaler` is a server or this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve_app.cli.controls import read_pictures
from serve_app.cli.exits import Exit, UsageError
from serve_app.cli.files import (
    Picture,
    check_target,
    find_pictures,
    format_of,
    is_file_target,
    place_in_folder,
    sidecar_of,
    write_whole,
)
from serve_app.cli.outcomes import Outcomes, reason_of, told_of
from serve_app.cli.progress import ProgressBar
from serve_app.cli.source import open_upscaler
from serve_app.cli.through_job import through_job
from serve_app.client import JobsClient, ServerUnreachable
from serve_app.contracts import (
    OutputFormat,
    Priority,
    UpscaleParams,
    Upscaler,
    UpscaleRequest,
)
from serve_app.errors import TesseraError, UnsupportedImage


@dataclass
class _Run:
    """What the workers of one command share."""

    upscaler: Upscaler
    params: UpscaleParams
    control_images: dict[str, bytes]
    priority: Priority
    overwrite: bool
    with_report: bool
    bar: ProgressBar
    outcomes: Outcomes


async def upscale_all(arguments: argparse.Namespace) -> Exit:
    """Upscales everything that the arguments name.

    Raises:
        UsageError: the arguments make no sense together.
        ServerUnreachable: the server cannot be reached, is not ready, or went away.
        ConfigurationError: the model cannot be used.
    """
    params: UpscaleParams = arguments.params(arguments)
    control_images = read_pictures(arguments.controls)
    to_file = is_file_target(arguments.output, arguments.inputs)
    if to_file:
        found_format = format_of(arguments.output, params.output_format)
        params = params.model_copy(update={"output_format": found_format})
    pictures, skipped = find_pictures(arguments.inputs, arguments.recursive)
    for path in skipped:
        print(f"tessera: {path}: skipped, not a picture", file=sys.stderr)
    if not pictures:
        raise UsageError("there is no picture in what was named")
    several = len(arguments.inputs) > 1 or pictures[0].in_folder
    if arguments.server is not None and several:
        async with JobsClient(arguments.server) as client:
            if await client.offered():
                params = await _with_format(params, client)
                tasks = _placed(pictures, Path(arguments.output), params)
                return await through_job(client, tasks, params, control_images, arguments)
    async with open_upscaler(arguments.server, params.model) as upscaler:
        if arguments.server is None:  # the model was chosen by opening it; it may be a path
            params = params.model_copy(update={"model": None})
        params = await _with_format(params, upscaler)
        folder = Path(arguments.output)
        tasks = [(pictures[0], folder)] if to_file else _placed(pictures, folder, params)
        with ProgressBar(len(pictures), arguments.progress) as bar:
            lane = Priority(arguments.priority or Priority.INTERACTIVE)
            outcomes = Outcomes(bar.say, arguments.json)
            flags = (arguments.overwrite, arguments.report)
            run = _Run(upscaler, params, control_images, lane, *flags, bar, outcomes)
            await _work(run, tasks, arguments.concurrency or (2 if arguments.server else 1))
    return outcomes.exit(len(pictures))


def _placed(
    pictures: Sequence[Picture], folder: Path, params: UpscaleParams
) -> list[tuple[Picture, Path]]:
    """Each picture with its target; the format is explicit by now."""
    targets = place_in_folder(pictures, folder, params.output_format or OutputFormat.PNG)
    return list(zip(pictures, targets, strict=True))


async def _with_format(params: UpscaleParams, upscaler: Upscaler | JobsClient) -> UpscaleParams:
    """Makes the output's format explicit, since it names the files before anything runs."""
    if params.output_format is not None:
        return params
    models = await upscaler.models()
    chosen = next((model for model in models if model.name == params.model), models[0])
    return params.model_copy(update={"output_format": chosen.defaults.output_format})


async def _work(run: _Run, tasks: Sequence[tuple[Picture, Path]], places: int) -> None:
    """Works through the pictures, `places` at once; stops all when the server is gone."""
    waiting = iter(tasks)
    sources = {picture.source.resolve() for picture, _ in tasks}

    async def worker() -> None:
        for picture, target in waiting:
            await _one(run, picture, target, sources)

    workers = [asyncio.create_task(worker()) for _ in range(min(places, len(tasks)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _one(run: _Run, picture: Picture, target: Path, sources: Collection[Path]) -> None:
    try:
        check_target(target, sources, overwrite=run.overwrite, with_report=run.with_report)
        image = await asyncio.to_thread(picture.source.read_bytes)
        request = UpscaleRequest(
            image=image,
            control_images=run.control_images,
            params=run.params,
            priority=run.priority,
            request_id=uuid.uuid4().hex,
        )
        result = await run.upscaler.upscale(
            request, lambda progress: run.bar.report(picture.source, progress)
        )
        await asyncio.to_thread(write_whole, target, result.image)
        facts = told_of(picture, target, result.model_dump(mode="json", exclude={"image"}))
        if run.with_report:
            text = json.dumps(facts, indent=2) + "\n"
            await asyncio.to_thread(write_whole, sidecar_of(target), text.encode())
    except ServerUnreachable:
        raise
    except UnsupportedImage as error:
        run.outcomes.unsupported(picture, error.detail)
    except (TesseraError, OSError) as error:
        run.outcomes.failure(picture, reason_of(error))
    else:
        run.outcomes.success(facts)
    finally:
        run.bar.end(picture.source)
