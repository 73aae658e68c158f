"""The tab of many pictures: a job that goes on when the page is closed.

It refuses to know who upscales.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from serve_app.contracts import Priority
from serve_app.errors import TesseraError
from serve_app.ui import history as jobs
from serve_app.ui.backend import Backend, Item, Job, Offer
from serve_app.ui.files import Shelf, result_name, url_of
from serve_app.ui.form import Form
from serve_app.ui.picture import QUIET, tenant_of
from serve_app.ui.words import error_words, items_table, link, note

LOOK_EVERY_S = 1.0
MOST_SHOWN = 24
"""Results in the gallery; the ZIP has all."""
_SEEN = ("image/png", "image/jpeg", "image/webp", "image/avif")


class BatchTab:
    """The components and what they do, made where a `Blocks` is open; see `PictureTab`."""

    def __init__(self, backend: Backend, offer: Offer, shelf: Shelf, history: Any) -> None:
        self._backend = backend
        self._shelf = shelf
        self.history = history
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.files = gr.File(
                    label="Pictures, or a ZIP of them", file_count="multiple", elem_id="files"
                )
                self.form = Form(offer)
                self.run = gr.Button("Start", variant="primary", elem_id="batch-run")
            with gr.Column(scale=3, min_width=300):
                self.table = gr.HTML(
                    note("The pictures' states will be shown here."), elem_id="batch-table"
                )
                with gr.Row():
                    self.cancel = gr.Button("Cancel", variant="stop", interactive=False)
                    self.retry = gr.Button("Try failed ones again", interactive=False)
                self.archive = gr.HTML("", elem_id="archive")
                self.gallery = gr.Gallery(
                    label="Results",
                    columns=3,
                    buttons=["fullscreen"],
                    visible=False,
                    elem_id="gallery",
                )
        self.current = gr.State("")
        self.outputs = [self.table, self.gallery, self.archive, self.run, self.cancel, self.retry]
        self._wire()

    def _wire(self) -> None:
        inputs = [self.files, *self.form.inputs, self.history]
        outputs = [*self.outputs, self.current, self.history]
        self.run.click(self._run, inputs, outputs, preprocess=False, **QUIET)
        self.cancel.click(self._cancel, self.current, None, **QUIET)
        self.retry.click(self._retry, self.current, self.outputs, **QUIET)

    async def _run(self, request: gr.Request, files: Any, *rest: Any) -> AsyncIterator[list[Any]]:
        *values, kept = rest
        tenant, skip = tenant_of(request), gr.skip()
        paths = [Path(file["path"]) for file in files or []]
        if not paths:
            told = error_words({"title": "No pictures", "detail": "Choose some first."})
            yield [told, *_buttons(busy=False), skip, skip]
            return
        yield [note("Sending"), *_buttons(busy=True), skip, skip]
        try:
            params = self.form.read(values)
            job = await self._backend.submit(paths, params, Priority.BATCH, tenant)
        except TesseraError as error:
            yield [error_words(error), *_buttons(busy=False), skip, skip]
            return
        name = paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"
        kept = jobs.added(kept, job.id, jobs.BATCH, name)
        yield [note("Waiting"), *_buttons(busy=True), job.id, kept]
        async for shown in self.follow(job.id, tenant):
            yield [*shown, skip, skip]

    async def follow(self, job_id: str, tenant: str) -> AsyncIterator[list[Any]]:
        """What to show of a job until it has ended, and then its results."""
        try:
            while True:
                job = await self._backend.job(job_id, tenant)
                items = await self._backend.items(job_id, tenant)
                table = items_table(job, items)
                if job.ended:
                    break
                yield [table, *_buttons(busy=True)]
                await asyncio.sleep(LOOK_EVERY_S)
            yield [table, *await self._results(job_id, items, tenant)]
        except TesseraError as error:
            yield [error_words(error), *_buttons(busy=False)]

    async def _results(self, job_id: str, items: Sequence[Item], tenant: str) -> list[Any]:
        shown: list[tuple[str, str]] = []
        for item in items:
            if len(shown) < MOST_SHOWN and item.result and item.result.media_type in _SEEN:
                name = f"{item.number}-{result_name(item.name, item.result.media_type)}"
                target = self._shelf.place(job_id, name)
                if not target.exists():
                    await self._backend.result(job_id, item.number, tenant, target)
                shown.append((str(target), item.name))
        archive = ""
        if any(item.result for item in items):
            target = self._shelf.place(job_id, f"{job_id}.zip")
            await self._backend.archive(job_id, tenant, target)
            archive = link(url_of(target), "Download all as a ZIP", f"{job_id}.zip")
        again = any(item.status in ("failed", "cancelled") for item in items)
        gallery = gr.update(value=shown, visible=bool(shown))
        return [gallery, archive, *_switched(busy=False, again=again)]

    async def _cancel(self, job_id: str, request: gr.Request) -> None:
        if job_id:
            try:
                await self._backend.cancel(job_id, tenant_of(request))
            except TesseraError as error:
                gr.Warning(error.detail)

    async def _retry(self, job_id: str, request: gr.Request) -> AsyncIterator[list[Any]]:
        try:
            await self._backend.retry(job_id, tenant_of(request))
        except TesseraError as error:
            yield [error_words(error), *_buttons(busy=False)]
            return
        async for shown in self.follow(job_id, tenant_of(request)):
            yield shown

    async def restore(self, history: Any, request: gr.Request) -> AsyncIterator[list[Any]]:
        """After a reload: goes on with the job that is still at work."""
        entry, tenant = jobs.newest(history, jobs.BATCH), tenant_of(request)
        job: Job | None = None
        if entry is not None:
            with suppress(TesseraError):
                job = await self._backend.job(entry["id"], tenant)
        if entry is None or job is None or job.ended:
            yield [gr.skip()] * (len(self.outputs) + 1)
            return
        async for shown in self.follow(entry["id"], tenant):
            yield [*shown, entry["id"]]


def _buttons(busy: bool) -> list[Any]:
    return [gr.update(visible=False), "", *_switched(busy, again=False)]


def _switched(busy: bool, again: bool) -> list[Any]:
    return [
        gr.update(interactive=not busy),
        gr.update(interactive=busy),
        gr.update(interactive=again),
    ]
