"""The page for programs: named endpoints for `gradio_client`, described in docs/page.md.

It refuses to know what people see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from serve_app.contracts import Priority, UpscaleParams
from serve_app.errors import TesseraError
from serve_app.ui.backend import Backend
from serve_app.ui.files import Shelf, result_name
from serve_app.ui.picture import tenant_of


class Endpoints:
    """Makes the endpoints, where a `Blocks` is open; see `PictureTab`."""

    def __init__(self, backend: Backend, shelf: Shelf) -> None:
        self._backend = backend
        self._shelf = shelf
        with gr.Row(visible=False):
            picture, out = gr.File(label="image"), gr.File(label="result")
            pictures = gr.File(label="images", file_count="multiple")
            params, facts = gr.JSON(label="params"), gr.JSON(label="facts")
            job_id = gr.Textbox(label="job_id")
            ends: list[tuple[Any, list[Any], list[Any]]] = [
                (self.upscale, [picture, params], [out, facts]),
                (self.plan, [picture, params], [facts]),
                (self.models, [], [facts]),
                (self.submit, [pictures, params], [facts]),
                (self.job, [job_id], [facts]),
                (self.cancel, [job_id], [facts]),
                (self.retry, [job_id], [facts]),
                (self.results, [job_id], [out]),
            ]
            for call, inputs, outputs in ends:
                gr.Button(call.__name__).click(call, inputs, outputs, api_name=call.__name__)

    async def upscale(self, image: str, params: dict[str, Any] | None, request: gr.Request) -> Any:
        """Upscales one picture; gives the file, and its size, seed, timings and fidelity report."""
        tenant = tenant_of(request)
        with _told():
            job = await self._backend.submit(
                [Path(image)], _read(params), Priority.INTERACTIVE, tenant
            )
            async for _ in self._backend.follow(job.id, tenant):
                pass
            (item,) = await self._backend.items(job.id, tenant)
            if item.result is None:
                told = (item.error or {}).get("detail") or item.status
                raise gr.Error(f"{told} (job {job.id})", print_exception=False)
            target = self._shelf.place(job.id, result_name(image, item.result.media_type))
            await self._backend.result(job.id, 0, tenant, target)
        return str(target), {"job_id": job.id, **item.result.model_dump(mode="json")}

    async def plan(self, image: str, params: dict[str, Any] | None, request: gr.Request) -> Any:
        """Says what a picture will cost."""
        with _told():
            found = await self._backend.plan(Path(image), _read(params), tenant_of(request))
        return found.model_dump()

    async def models(self) -> Any:
        """Says what can be asked for, the default model first."""
        with _told():
            return (await self._backend.offer()).model_dump(mode="json", exclude_none=True)

    async def submit(
        self, images: list[str], params: dict[str, Any] | None, request: gr.Request
    ) -> Any:
        """Submits pictures, or a ZIP of them, as a job."""
        with _told():
            paths = [Path(image) for image in images or []]
            tenant = tenant_of(request)
            job = await self._backend.submit(paths, _read(params), Priority.BATCH, tenant)
        return job.model_dump()

    async def job(self, job_id: str, request: gr.Request) -> Any:
        """Says how a job and its pictures get on."""
        tenant = tenant_of(request)
        with _told():
            found = await self._backend.job(job_id, tenant)
            items = await self._backend.items(job_id, tenant)
        return found.model_dump() | {"items": [item.model_dump(mode="json") for item in items]}

    async def cancel(self, job_id: str, request: gr.Request) -> Any:
        """Gives a job up."""
        with _told():
            return (await self._backend.cancel(job_id, tenant_of(request))).model_dump()

    async def retry(self, job_id: str, request: gr.Request) -> Any:
        """Tries a job's failed and cancelled pictures again."""
        with _told():
            return (await self._backend.retry(job_id, tenant_of(request))).model_dump()

    async def results(self, job_id: str, request: gr.Request) -> str:
        """Gives all results that are there as a ZIP."""
        target = self._shelf.place(job_id, f"{job_id}.zip")
        with _told():
            await self._backend.archive(job_id, tenant_of(request), target)
        return str(target)


def _read(params: dict[str, Any] | None) -> UpscaleParams:
    return UpscaleParams.parse(params or {})


class _told:  # noqa: N801  reads as a word
    """Lets a caller hear the tree's errors in their own sentences."""

    def __enter__(self) -> None:
        """Nothing is set up."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TesseraError):
            raise gr.Error(error.detail, title=error.title, print_exception=False) from None
