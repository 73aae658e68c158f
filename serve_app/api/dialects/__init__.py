"""Other tools' protocols, each translated to an `UpscaleRequest` or a job and back, and nothing more."""

from __future__ import annotations

from fastapi import APIRouter

from serve_app.api.dialects.errand import Errands
from serve_app.api.dialects.openai import openai_routes
from serve_app.api.dialects.replicate import replicate_routes
from serve_app.api.dialects.sdwebui import sdwebui_routes
from serve_app.api.jobs.desk import Desk
from serve_app.api.problems import Problems
from serve_app.contracts import Upscaler
from serve_app.settings import Settings


def dialect_routes(
    upscaler: Upscaler, desk: Desk | None, settings: Settings, problems: Problems
) -> list[APIRouter]:
    """The routes of the dialects that are switched on; Replicate's predictions are jobs, and need a desk."""
    spoken = settings.requests.dialects
    errands = Errands(upscaler, desk, settings)
    routers = []
    if "openai" in spoken:
        routers.append(openai_routes(upscaler, errands, settings, problems))
    if "sdwebui" in spoken:
        routers.append(sdwebui_routes(upscaler, errands, settings, problems))
    if "replicate" in spoken and desk is not None:
        routers.append(replicate_routes(upscaler, desk, settings))
    return routers
