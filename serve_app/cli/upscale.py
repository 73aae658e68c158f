"""`tessera upscale`: each picture is read, sent through an `Upscaler`, and written whole or not at all.

It refuses to know whether the `Upscaler` is a server or this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_app.cli.controls import read_pictures
from serve_app.cli.exits import Exit, UsageError
from serve_app.cli.files import (
    Picture,
    find_pictures,
    format_of,
    is_file_target,
    place_in_folder,
    write_whole,
)
from serve_app.cli.progress import ProgressBar
from serve_app.cli.source import open_upscaler
from serve_app.client import ServerUnreachable
from serve_app.contracts import (
    Priority,
    UpscaleParams,
    Upscaler,
    UpscaleRequest,
    UpscaleResult,
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
    as_json: bool
    with_report: bool
    bar: ProgressBar
    failed: list[Path] = field(default_factory=list)


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
    async with open_upscaler(arguments.server, params.model) as upscaler:
        if arguments.server is None:  # the model was chosen by opening it; it may be a path
            params = params.model_copy(update={"model": None})
        params = await _with_format(params, upscaler)
        targets = [Path(arguments.output)]
        if not to_file and params.output_format is not None:
            targets = place_in_folder(pictures, Path(arguments.output), params.output_format)
        with ProgressBar(len(pictures), arguments.progress) as bar:
            lane = Priority(arguments.priority)
            flags = (arguments.overwrite, arguments.json, arguments.report)
            run = _Run(upscaler, params, control_images, lane, *flags, bar)
            places = arguments.concurrency or (2 if arguments.server else 1)
            await _work(run, list(zip(pictures, targets, strict=True)), places)
    if run.failed:
        print(f"tessera: {len(run.failed)} of {len(pictures)} failed", file=sys.stderr)
    return Exit.FAILED if run.failed else Exit.DONE


async def _with_format(params: UpscaleParams, upscaler: Upscaler) -> UpscaleParams:
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
            await _one(run, picture, target, target.resolve() in sources)

    workers = [asyncio.create_task(worker()) for _ in range(min(places, len(tasks)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _one(run: _Run, picture: Picture, target: Path, is_source: bool) -> None:
    try:
        if is_source:
            raise FileExistsError(f"{target} is itself an input")
        sidecar = target.with_name(f"{target.name}.json")
        for path in (target, sidecar)[: 1 + run.with_report]:
            if path.exists() and not run.overwrite:
                raise FileExistsError(f"{path} exists; --overwrite replaces it")
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
        if run.with_report:
            text = json.dumps(_facts(picture, target, result), indent=2) + "\n"
            await asyncio.to_thread(write_whole, sidecar, text.encode())
    except ServerUnreachable:
        raise
    except UnsupportedImage as error:
        if not picture.in_folder:
            _tell_failure(run, picture, error.detail)
        else:
            run.bar.say(f"tessera: {picture.source}: skipped, {error.detail}", sys.stderr)
    except TesseraError as error:
        _tell_failure(run, picture, error.detail)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.strerror else str(error)
        _tell_failure(run, picture, reason)
    else:
        _tell_success(run, picture, target, result)
    finally:
        run.bar.end(picture.source)


def _tell_failure(run: _Run, picture: Picture, reason: str) -> None:
    run.failed.append(picture.source)
    run.bar.say(f"tessera: {picture.source}: {reason}", sys.stderr)
    if run.as_json:
        run.bar.say(json.dumps({"input": str(picture.source), "error": reason}), sys.stdout)


def _tell_success(run: _Run, picture: Picture, target: Path, result: UpscaleResult) -> None:
    if run.as_json:
        line = json.dumps(_facts(picture, target, result))
    else:
        size = f"{result.width}x{result.height}"
        line = f"{picture.source} -> {target} ({size}, seed {result.params.seed})"
    run.bar.say(line, sys.stdout)


def _facts(picture: Picture, target: Path, result: UpscaleResult) -> dict[str, Any]:
    """What is told of a result: its fidelity report and all that was run, without the picture."""
    facts = result.model_dump(mode="json", exclude={"image"})
    return {"input": str(picture.source), "output": str(target), **facts}
