"""Settings: frozen groups whose every field states its unit, default and reason.

They are the `args` of the Ray Serve application (`configs/*.yaml`) and the defaults of the CLI. An unknown
name or a bad value fails at start with the field's name. What a caller may choose for one request is in
`contracts`; what a model chooses for itself is in its `tessera.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError

from serve_app.errors import ConfigurationError
from serve_app.fetch.settings import FetchSettings
from serve_app.settings.deployments import Autoscaling, DeploymentSettings
from serve_app.settings.engine import EngineSettings
from serve_app.settings.group import Group
from serve_app.settings.images import ImageLimits
from serve_app.settings.jobs import JobSettings
from serve_app.settings.model import ModelSettings, PromptSettings, named_model
from serve_app.settings.page import PageSettings
from serve_app.settings.requests import RequestSettings
from serve_app.settings.webhooks import WebhookSettings

__all__ = [
    "Autoscaling",
    "DeploymentSettings",
    "EngineSettings",
    "FetchSettings",
    "ImageLimits",
    "JobSettings",
    "ModelSettings",
    "PageSettings",
    "PromptSettings",
    "RequestSettings",
    "Settings",
    "WebhookSettings",
]


class Settings(Group):
    """Everything that can be set when the application starts."""

    model: Annotated[ModelSettings, BeforeValidator(named_model)] = ModelSettings()
    prompts: PromptSettings = PromptSettings()
    images: ImageLimits = ImageLimits()
    fetch: FetchSettings = FetchSettings()
    requests: RequestSettings = RequestSettings()
    engine: EngineSettings = EngineSettings()
    jobs: JobSettings = JobSettings()
    deployments: DeploymentSettings = DeploymentSettings()
    home: str = Field(
        "docs", description="Where `/` leads a browser: `ui` where the page runs beside the API."
    )

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Reads settings that came from a file or a command line.

        Raises:
            ConfigurationError: naming the field at fault.
        """
        try:
            return cls.model_validate(dict(raw))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in fault["loc"])
            raise ConfigurationError(f"{name}: {fault['msg']}", field=name) from None
