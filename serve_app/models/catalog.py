"""Finds a model folder and reads its `tessera.json`. Loads no weight: every process may ask.

A model is a folder in diffusers' layout plus `tessera.json`. Adding a model is adding a folder.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from serve_app.contracts import ModelInfo
from serve_app.errors import ConfigurationError

SHIPPED = Path(__file__).parent
DESCRIPTION_FILE = "tessera.json"


def find_model(name_or_path: str) -> Path:
    """Resolves a shipped model's name or a path to a model folder.

    Raises:
        ConfigurationError: if neither exists.
    """
    for folder in (SHIPPED / name_or_path, Path(name_or_path).expanduser()):
        if (folder / DESCRIPTION_FILE).is_file():
            return folder.resolve()
    shipped = sorted(found.parent.name for found in SHIPPED.glob(f"*/{DESCRIPTION_FILE}"))
    raise ConfigurationError(
        f"model: {name_or_path!r} is neither a shipped model nor a folder with a {DESCRIPTION_FILE}",
        field="model",
        allowed=f"{', '.join(shipped)}, or a path",
    )


def read_model_info(folder: Path) -> ModelInfo:
    """Reads and checks a model folder's description.

    Raises:
        ConfigurationError: naming the file and the field at fault.
    """
    path = folder / DESCRIPTION_FILE
    try:
        return ModelInfo.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in fault["loc"])
        raise ConfigurationError(f"{path}: {name}: {fault['msg']}", field=name) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error}", field="model") from None
