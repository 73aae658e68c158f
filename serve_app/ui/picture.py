"""The tab of one picture: choose it, see what it will cost, follow it, compare, download.

A picture runs as a job of one item, so that a reload finds it again. It refuses to know who upscales.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from serve_app.contracts import Priority
from serve_app.errors import TesseraError
from serve_app.ui import history as jobs
from serve_app.ui.backend import Backend, Job, Offer
from serve_app.ui.files import Shelf, result_name, url_of
from serve_app.ui.form import Form
from serve_app.ui.look import compare
from serve_app.ui.words import error_words, link, note, plan_words, progress_words, report_words

QUIET = {"api_visibility": "private", "show_progress": "hidden"}


def tenant_of(request: gr.Request | None) -> str:
    """On whose behalf the page asks: whoever is in front of it says so."""
    return str(request.headers.get("x-tenant-id") or "") if request else ""


class PictureTab:
    """The components and what they do, made where a `Blocks` is open.

    Args:
        backend: Upscales.
        offer: What it can be asked for.
        shelf: Keeps results for the browser.
        history: The browser's list of jobs.
        examples: Pictures to try.
    """

    def __init__(
        self, backend: Backend, offer: Offer, shelf: Shelf, history: Any, examples: Sequence[Path]
    ) -> None:
        self._backend = backend
        self._shelf = shelf
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.picture = gr.Image(
                    label="Picture",
                    sources=["upload", "clipboard"],
                    type="filepath",
                    height=260,
                    buttons=[],
                    elem_id="picture",
                    alt_text="The picture to enlarge",
                    placeholder="Drop a picture here, paste one, or click",
                )
                if examples:
                    gr.Examples(
                        [[str(path)] for path in examples],
                        [self.picture],
                        label="Examples",
                        api_visibility="private",
                    )
                self.form = Form(offer)
                self.plan = gr.HTML(
                    note("Choose a picture to see what it will cost."), elem_id="plan"
                )
                with gr.Row():
                    self.run = gr.Button("Upscale", variant="primary", elem_id="run")
                    self.cancel = gr.Button(
                        "Cancel", variant="stop", interactive=False, elem_id="cancel"
                    )
            with gr.Column(scale=3, min_width=300):
                self.status = gr.HTML(note("The result will be shown here."), elem_id="status")
                self.result = gr.HTML("", elem_id="result")
                self.report = gr.HTML("", elem_id="report")
        self.current = gr.State("")
        self.history = history
        self.outputs = [self.status, self.result, self.report, self.run, self.cancel]
        self._wire()

    def _wire(self) -> None:
        inputs = [self.picture, *self.form.inputs]
        gr.on(
            [self.picture.change, *self.form.changes],
            self._plan,
            inputs,
            self.plan,
            preprocess=False,
            trigger_mode="always_last",
            **QUIET,
        )
        self.run.click(
            self._run,
            [*inputs, self.history],
            [*self.outputs, self.current, self.history],
            preprocess=False,
            **QUIET,
        ).then(self._plan, inputs, self.plan, preprocess=False, **QUIET)  # the pace is known now
        self.cancel.click(self._cancel, self.current, self.status, **QUIET)

    async def _plan(self, request: gr.Request, picture: Any, *values: Any) -> str:
        if not picture:
            return note("Choose a picture to see what it will cost.")
        try:
            params = self.form.read(values)
            found = await self._backend.plan(Path(picture["path"]), params, tenant_of(request))
        except TesseraError as error:
            return error_words(error)
        return plan_words(found)

    async def _run(self, request: gr.Request, picture: Any, *rest: Any) -> AsyncIterator[list[Any]]:
        *values, kept = rest
        skip = gr.skip()
        if not picture:
            told = error_words({"title": "No picture", "detail": "Choose one first."})
            yield [*_idle(told), skip, skip]
            return
        yield [*_busy(progress_words("Sending")), skip, skip]
        path, tenant = Path(picture["path"]), tenant_of(request)
        try:
            params = self.form.read(values)
            job = await self._backend.submit([path], params, Priority.INTERACTIVE, tenant)
        except TesseraError as error:
            yield [*_idle(error_words(error)), skip, skip]
            return
        name = str(picture.get("orig_name") or path.name)
        kept = jobs.added(kept, job.id, jobs.PICTURE, name, str(path))
        yield [*_busy(progress_words("Waiting")), job.id, kept]
        async for shown in self.follow(job.id, kept[0], tenant):
            yield [*shown, skip, skip]

    async def follow(self, job_id: str, entry: jobs.Entry, tenant: str) -> AsyncIterator[list[Any]]:
        """What to show of a job until it has ended, and then its result."""
        preview: bytes | None = None
        known: dict[str, Any] = {}
        try:
            async for told in self._backend.follow(job_id, tenant):
                if told.kind == "item.preview":
                    preview = await self._backend.preview(job_id, 0, tenant) or preview
                if told.kind in ("item.preview", "item.progress", "item.started"):
                    known.update(told.data)
                    yield _busy(_progress(known, preview))
            yield await self._ended(await self._backend.job(job_id, tenant), entry, tenant)
        except TesseraError as error:
            yield _idle(error_words(error))

    async def _ended(self, job: Job, entry: jobs.Entry, tenant: str) -> list[Any]:
        if job.status == "cancelled":
            return _idle(note("Cancelled."))
        item = (await self._backend.items(job.id, tenant))[0]
        if item.result is None:
            return _idle(error_words({"request_id": job.id, **(item.error or {})}))
        name = result_name(str(entry.get("name", "")), item.result.media_type)
        target = self._shelf.place(job.id, name)
        if not target.exists():
            await self._backend.result(job.id, 0, tenant, target)
        source = str(entry.get("source") or "")
        before = url_of(source) if source else ""
        url = url_of(target)
        shown = compare(before, url, item.result.height, item.result.width)
        size = f"{item.result.width} x {item.result.height} px"
        done = note(f"Done: {entry.get('name', '')}, {size}.")
        kind = item.result.media_type.split("/")[1].upper()
        told = report_words(item.result)
        return _idle(done, shown, link(url, f"Download {kind}", name) + told)

    async def _cancel(self, job_id: str, request: gr.Request) -> Any:
        if not job_id:
            return gr.skip()
        try:
            await self._backend.cancel(job_id, tenant_of(request))
        except TesseraError as error:
            return error_words(error)
        return progress_words("Cancelling")

    async def restore(self, history: Any, request: gr.Request) -> AsyncIterator[list[Any]]:
        """After a reload: goes on with the picture that is still at work."""
        entry, tenant = jobs.newest(history, jobs.PICTURE), tenant_of(request)
        job: Job | None = None
        if entry is not None:
            with suppress(TesseraError):
                job = await self._backend.job(entry["id"], tenant)
        if entry is None or job is None or job.ended:
            yield [gr.skip()] * (len(self.outputs) + 1)
            return
        yield [*_busy(progress_words(f"Still at work: {entry.get('name', '')}")), job.id]
        async for shown in self.follow(job.id, entry, tenant):
            yield [*shown, gr.skip()]


def _progress(known: Mapping[str, Any], preview: bytes | None) -> str:
    done, total = known.get("tiles_done", 0), known.get("tiles_total", 0)
    return progress_words("At work", done, total, known.get("eta_s"), preview)


def _busy(status: str) -> list[Any]:
    return [status, "", "", gr.update(interactive=False), gr.update(interactive=True)]


def _idle(status: str, result: str = "", report: str = "") -> list[Any]:
    return [status, result, report, gr.update(interactive=True), gr.update(interactive=False)]
