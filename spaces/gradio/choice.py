"""Which model a Space runs, and in which words the page says so.

It refuses to know how the model is loaded and where pictures come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve_app.settings import Settings

FLUX = "flux-dev-upscaler"
EMBEDDED = "mini"
WAITING = 16
"""Pictures that wait for the one at work; one more is refused."""

_LIMITS = {
    "upload_bytes": 32 * 2**20,
    "source_pixels": 16_000_000,
    "result_pixels": 64_000_000,
    "frames": 60,
}


@dataclass(frozen=True)
class Choice:
    """A Space's settings and why they are so."""

    settings: Settings
    words: str

    @property
    def model(self) -> str:
        """Where the model comes from."""
        return self.settings.model.source


def choose(environ: Mapping[str, str], gpu: bool, lent: bool) -> Choice:
    """Chooses FLUX where it can run, else the embedded model.

    Args:
        environ: `HF_TOKEN` opens FLUX's repository; `TESSERA_MODEL` names another source.
        gpu: Whether there is one, be it lent.
        lent: Whether the GPU is there only while a picture runs (ZeroGPU).

    Raises:
        ConfigurationError: if the settings cannot be used.
    """
    named = environ.get("TESSERA_MODEL")
    if named:
        source, words = named, f"Model: {named}, as this Space's owner chose."
    elif gpu and environ.get("HF_TOKEN"):
        source = FLUX
        words = "Model: FLUX.1-dev with jasperai's upscaler. For non-commercial use only."
    else:
        lacks = "a token for FLUX.1-dev" if gpu else "a GPU"
        source, words = EMBEDDED, f"Model: the small embedded one. This Space has not {lacks}."
    raw: dict[str, Any] = {
        "model": source,
        "images": _LIMITS,
        "requests": {"pictures_at_once": 1 + WAITING},
    }
    if lent:  # the text encoders are moved to the GPU with the networks
        raw["prompts"] = {"device": "cuda"}
    return Choice(Settings.parse(raw), words)
