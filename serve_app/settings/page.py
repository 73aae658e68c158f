"""The web page: where it finds the API, and what it keeps."""

from __future__ import annotations

from pydantic import Field

from serve_app.settings.group import Group


class PageSettings(Group):
    """The `args` of the page's own Serve application."""

    server: str = Field(
        "http://127.0.0.1:8000",
        description="Base URL of the API, as the page's own process reaches it.",
    )
    jobs: bool = Field(
        True, description="Whether the API offers jobs; without them nothing survives a reload."
    )
    files_kept_s: int = Field(
        86400, gt=0, description="Seconds that uploads and results are kept for browsers."
    )
    cpus: float = Field(0.1, ge=0, description="CPUs reserved for the page; it passes files on.")
