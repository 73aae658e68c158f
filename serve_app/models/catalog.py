"""Finds a model folder and reads its `tessera.json`. Loads no weight: every process may ask.

A model is a folder in diffusers' layout plus `tessera.json`. Adding a model is adding a folder. Where it is
named by a hub id or a URL, only its description is fetched here; its parts follow when they are asked for, see
`source.find_part`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from serve_app.errors import ConfigurationError
from serve_app.model_info import ModelInfo
from serve_app.models.revision import find_revision
from serve_app.models.source import fetch_description, is_remote

SHIPPED = Path(__file__).parent
DESCRIPTION_FILE = "tessera.json"


def find_model(source: str, cache_dir: str | None = None) -> Path:
    """Resolves `model.source` to a folder on this node that holds the model's description.

    Args:
        source: A shipped model's name, a folder, `OWNER/NAME@REVISION` on the hub, or an fsspec URL.
        cache_dir: `model.cache_dir`.

    Raises:
        ConfigurationError: if there is no such model, or it lacks a description.
    """
    for folder in (SHIPPED / source, Path(source).expanduser()):
        if (folder / DESCRIPTION_FILE).is_file():
            return folder.resolve()
    if is_remote(source):
        folder = fetch_description(source, cache_dir)
        if (folder / DESCRIPTION_FILE).is_file():
            return folder
        raise ConfigurationError(
            f"model: {source} has no {DESCRIPTION_FILE}. Write one in a folder of your own, naming this source "
            "under `components`, and give that folder: docs/flux.md shows how",
            field="model.source",
        )
    shipped = sorted(found.parent.name for found in SHIPPED.glob(f"*/{DESCRIPTION_FILE}"))
    raise ConfigurationError(
        f"model: {source!r} is neither a shipped model nor a folder with a {DESCRIPTION_FILE}",
        field="model",
        allowed=f"{', '.join(shipped)}, a path, OWNER/NAME@REVISION, or a URL",
    )


def read_model_info(folder: Path) -> ModelInfo:
    """Reads and checks a model folder's description.

    Raises:
        ConfigurationError: naming the file and the field at fault.
    """
    path = folder / DESCRIPTION_FILE
    try:
        info = ModelInfo.model_validate_json(path.read_bytes())
        return info.model_copy(update={"revision": info.revision or find_revision(folder)})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in fault["loc"])
        raise ConfigurationError(f"{path}: {name}: {fault['msg']}", field=name) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error}", field="model") from None
