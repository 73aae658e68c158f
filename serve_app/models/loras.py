"""Finds LoRA adapters in a folder by name, and how large they are. Reads no weight: every process may ask.

An adapter is a file `NAME.safetensors`, or a folder `NAME` as diffusers' `save_lora_weights` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from serve_app.contracts import ModelInfo
from serve_app.errors import ConfigurationError

_SUFFIX = ".safetensors"
_SAVED = "pytorch_lora_weights" + _SUFFIX
_MOST_RANK = 256  # room of this rank takes 2.8 GB beside FLUX.1-dev in bfloat16


def find_loras(folder: str | None) -> dict[str, Path]:
    """The adapters of a folder by name, in alphabetical order.

    Args:
        folder: `ModelSettings.loras`; None has no adapters.

    Raises:
        ConfigurationError: if the folder cannot be read, or two adapters have one name.
    """
    if folder is None:
        return {}
    try:
        files = [file for file in Path(folder).expanduser().iterdir() if not _hidden(file)]
        found = sorted(
            [(file.stem, file) for file in files if file.suffix == _SUFFIX and file.is_file()]
            + [(file.name, file / _SAVED) for file in files if (file / _SAVED).is_file()]
        )
    except OSError as error:
        raise ConfigurationError(f"model.loras: {folder}: {error}", field="model.loras") from None
    loras = dict(found)
    if len(loras) < len(found):
        names = [name for name, _ in found]
        twice = next(name for name in loras if names.count(name) > 1)
        raise ConfigurationError(
            f"model.loras: {folder}: two adapters are named {twice!r}", field="model.loras"
        )
    return loras


def with_loras(info: ModelInfo, folder: str | None) -> ModelInfo:
    """A model's description that tells the adapters of a folder.

    Raises:
        ConfigurationError: see `find_loras`.
    """
    return info.model_copy(update={"loras": tuple(find_loras(folder))})


def room_rank(files: Iterable[Path]) -> int:
    """The rank of a room that holds any of some adapters; those that are broken or over 256 need none.

    Args:
        files: What `find_loras` found.
    """
    return max((rank for rank in map(_rank, files) if rank <= _MOST_RANK), default=0)


def _rank(file: Path) -> int:
    """The greatest rank in a file, of its header alone; 0 if it has none that can be read."""
    try:
        with safe_open(file, framework="np") as tensors:
            shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118
    except (OSError, SafetensorError):
        return 0
    return max((min(shape) for shape in shapes if len(shape) == 2), default=0)


def _hidden(file: Path) -> bool:
    return file.name.startswith(".")
