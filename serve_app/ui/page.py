"""Puts the page together: `build_page(backend)` is a Gradio `Blocks`, `mounted` says how to serve it.

It refuses to know who upscales, and on what server it runs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported, and later

import gradio as gr

from serve_app.errors import TesseraError
from serve_app.ui import history as jobs
from serve_app.ui.backend import Backend, Offer
from serve_app.ui.batch import BatchTab
from serve_app.ui.endpoints import Endpoints
from serve_app.ui.files import Shelf
from serve_app.ui.look import CSS, HEAD, TOGGLE_DARK, theme
from serve_app.ui.picture import QUIET, PictureTab, tenant_of
from serve_app.ui.words import note

_STORAGE_KEY = "tessera-jobs"
_SECRET = "tessera"  # Gradio wants one; job ids in one's own browser are no secret
_HOUR_S = 3600
_AT_ONCE = 100
"""Events of each kind that run together: each waits for the server, and computes nothing."""


def build_page(
    backend: Backend,
    offer: Offer,
    shelf: Shelf,
    examples: Sequence[Path] = (),
    kept_s: int = 86400,
    notice: str = "",
) -> Any:
    """Builds the page.

    Args:
        backend: Upscales.
        offer: What it can be asked for.
        shelf: Keeps results for browsers.
        examples: Pictures to try.
        kept_s: Seconds that uploads are kept.
        notice: What its operator tells everybody, in a sentence.
    """
    with gr.Blocks(
        title="Tessera", analytics_enabled=False, delete_cache=(_HOUR_S, kept_s)
    ) as page:
        history = gr.BrowserState([], storage_key=_STORAGE_KEY, secret=_SECRET)
        with gr.Row(elem_id="head"):
            gr.Markdown(
                "# Tessera\nMakes a picture larger and sharper, and keeps what is in it.",
                elem_id="title",
            )
            dark = gr.Button("Light / dark", size="sm", elem_id="dark")
        if notice:
            gr.HTML(note(notice), elem_id="notice")
        with gr.Tabs() as tabs:
            with gr.Tab("Picture", id="picture"):
                picture = PictureTab(backend, offer, shelf, history, examples)
            with gr.Tab("Batch", id="batch"):
                batch = BatchTab(backend, offer, shelf, history)
            with gr.Tab("History", id="history") as third:
                _History(backend, history, picture, batch, tabs, third)
        Endpoints(backend, shelf)
        dark.click(None, None, None, js=TOGGLE_DARK, api_visibility="private")
        page.load(picture.restore, history, [*picture.outputs, picture.current], **QUIET)
        page.load(batch.restore, history, [*batch.outputs, batch.current], **QUIET)
    page.queue(default_concurrency_limit=_AT_ONCE)
    return page


def mounted(shelf: Shelf) -> dict[str, Any]:
    """The keywords of `gr.mount_gradio_app` and of `Blocks.launch` that the page needs."""
    return {
        "theme": theme(),
        "css": CSS,
        "head": HEAD,
        "allowed_paths": [str(shelf.folder)],
        "footer_links": ["api", "settings"],
        "run_history": False,
        "show_error": True,
        "ssr_mode": False,
    }


def mount(app: Any, page: Any, shelf: Shelf) -> Any:
    """Mounts the page at the root of a FastAPI application."""
    return gr.mount_gradio_app(app, page, "/", **mounted(shelf))


class _History:
    """The tab of this browser's jobs."""

    def __init__(
        self,
        backend: Backend,
        history: Any,
        picture: PictureTab,
        batch: BatchTab,
        tabs: Any,
        tab: Any,
    ) -> None:
        self._backend = backend
        self._picture = picture
        self._batch = batch
        self.told = gr.HTML(note("Jobs of this browser, newest first."))
        self.list = gr.Radio([], label="Jobs", elem_id="jobs")
        with gr.Row():
            show = gr.Button("Open", variant="primary", elem_id="open")
            again = gr.Button("Look again")
            forget = gr.Button("Forget all")
        outputs = [self.told, self.list]
        tab.select(self._look, history, outputs, **QUIET)
        again.click(self._look, history, outputs, **QUIET)
        forget.click(
            lambda: (
                [],
                note("Forgotten here; the jobs go on."),
                gr.update(choices=[], value=None),
            ),
            None,
            [history, *outputs],
            **QUIET,
        )
        show.click(
            self._open,
            [self.list, history],
            [tabs, *picture.outputs, picture.current, *batch.outputs, batch.current],
            preprocess=False,
            **QUIET,
        )

    async def _look(self, history: Any, request: gr.Request) -> list[Any]:
        states: dict[str, str] = {}
        for entry in jobs.entries(history):
            try:
                states[entry["id"]] = (
                    await self._backend.job(entry["id"], tenant_of(request))
                ).status
            except TesseraError:
                continue
        choices = jobs.choices(history, states)
        told = note("Jobs of this browser, newest first." if choices else "No jobs yet.")
        return [told, gr.update(choices=choices, value=choices[0][1] if choices else None)]

    async def _open(
        self, job_id: Any, history: Any, request: gr.Request
    ) -> AsyncIterator[list[Any]]:
        entry, tenant = jobs.entry_of(history, str(job_id)), tenant_of(request)
        ours = [gr.skip()] * (len(self._picture.outputs) + 1)
        theirs = [gr.skip()] * (len(self._batch.outputs) + 1)
        if entry is None:
            yield [gr.skip(), *ours, *theirs]
        elif entry.get("kind") == jobs.BATCH:
            async for shown in self._batch.follow(entry["id"], tenant):
                yield [gr.Tabs(selected="batch"), *ours, *shown, entry["id"]]
        else:
            async for shown in self._picture.follow(entry["id"], entry, tenant):
                yield [gr.Tabs(selected="picture"), *shown, entry["id"], *theirs]
