"""Loads a model folder onto a device. The embedded model and FLUX.1-dev come through the same lines.

A folder holds diffusers' layout (`transformer/ controlnet/ vae/ scheduler/`, perhaps text encoders) and
`tessera.json`. A component may live elsewhere: `components` in `tessera.json` names its source.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from serve_app.contracts import ModelInfo
from serve_app.diffusion.prompts import EMBEDS_FILE, Prompt, PromptEncoder, read_null_prompt
from serve_app.errors import ConfigurationError
from serve_app.models.catalog import read_model_info

TOKEN_LATENTS = 2  # side of the square of latents that FLUX packs into one token

_COMPONENTS = ("transformer", "controlnet", "vae", "scheduler")
_SOURCE = re.compile(r"(?P<source>[^@:]+)(@(?P<revision>[^:]+))?(:(?P<subfolder>.+))?")


@dataclass(frozen=True)
class FluxModel:
    """A loaded model. All modules are in evaluation mode, on `device`, in `dtype`.

    Attributes:
        info: Its `tessera.json`.
        transformer: `FluxTransformer2DModel`.
        controlnet: `FluxControlNetModel`.
        vae: `AutoencoderKL` or another autoencoder that `FluxControlNetPipeline` accepts.
        scheduler_config: The configuration of `FlowMatchEulerDiscreteScheduler`.
        null_prompt: Embeddings of the empty prompt.
        prompt_encoder: The text encoders, where the folder has them.
        vae_scale: Pixels to one latent pixel, along a side.
    """

    info: ModelInfo
    transformer: Any
    controlnet: Any
    vae: Any
    scheduler_config: dict[str, Any]
    null_prompt: Prompt
    prompt_encoder: PromptEncoder | None
    vae_scale: int
    device: torch.device
    dtype: torch.dtype

    @property
    def latent_channels(self) -> int:
        """Channels of a latent pixel."""
        return int(self.transformer.config.in_channels) // TOKEN_LATENTS**2


def choose_device(name: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """Turns the settings' device and dtype into torch's; `auto` is explained in `EngineSettings`.

    Raises:
        ConfigurationError: if there is no such device.
    """
    try:
        found = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(found if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"engine.device: {name}: {error}", field="engine.device") from None
    if dtype == "auto":
        return device, torch.bfloat16 if device.type == "cuda" else torch.float32
    return device, getattr(torch, dtype)


def load_model(folder: Path, device: torch.device, dtype: torch.dtype) -> FluxModel:
    """Loads every component of a model folder.

    Args:
        folder: With `tessera.json`, see `models.catalog.find_model`.
        device: Where the weights go.
        dtype: What they are cast to; files may hold another type.

    Raises:
        ConfigurationError: naming what is missing or does not fit together.
    """
    from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    info = read_model_info(folder)
    _check_components(info)
    transformer = _load(FluxTransformer2DModel, info, folder, "transformer", device, dtype)
    controlnet = _load(FluxControlNetModel, info, folder, "controlnet", device, dtype)
    vae = _load(_autoencoder_class(info, folder), info, folder, "vae", device, dtype)
    vae.to(
        memory_format=torch.channels_last
    )  # its convolutions decode a tile in two thirds of the time
    null_prompt, encoder = _prompts(info, folder, device, dtype)
    vae_scale = 2 ** (len(vae.config.block_out_channels) - 1)
    if info.align_px != vae_scale * TOKEN_LATENTS:
        raise ConfigurationError(
            f"{folder}: align_px is {info.align_px}, but one token of this model covers "
            f"{vae_scale * TOKEN_LATENTS} px",
            field="align_px",
        )
    return FluxModel(
        info=info,
        transformer=transformer,
        controlnet=controlnet,
        vae=vae,
        scheduler_config=_scheduler_config(info, folder),
        null_prompt=null_prompt,
        prompt_encoder=encoder,
        vae_scale=vae_scale,
        device=device,
        dtype=dtype,
    )


def _autoencoder_class(info: ModelInfo, folder: Path) -> Any:
    from diffusers import AutoencoderKL, AutoencoderTiny

    name = _config(AutoencoderKL, info, folder, "vae")["_class_name"]
    known = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderTiny)}
    if name not in known:
        raise ConfigurationError(
            f"{folder}: vae is a {name}", field="vae", allowed=" or ".join(known)
        )
    return known[name]


def _scheduler_config(info: ModelInfo, folder: Path) -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return _config(FlowMatchEulerDiscreteScheduler, info, folder, "scheduler")


def _prompts(
    info: ModelInfo, folder: Path, device: torch.device, dtype: torch.dtype
) -> tuple[Prompt, PromptEncoder | None]:
    """The empty prompt and, for a model that takes others, the text encoders.

    With encoders the empty prompt is theirs, so that all prompts are equally long and can share a batch.
    """
    with _blamed_on("prompt_embeds", folder):
        stored = read_null_prompt(folder, device, dtype)
    if stored and not info.takes_prompt:
        return stored, None
    with _blamed_on("text_encoder", folder):
        encoder = PromptEncoder.from_folder(folder, device, dtype)
    if encoder is not None:
        return encoder.encode(""), encoder
    if stored:
        raise ConfigurationError(
            f"{folder}: takes_prompt is true, but there are no text encoders", field="takes_prompt"
        )
    raise ConfigurationError(
        f"{folder}: neither {EMBEDS_FILE} nor text encoders", field="prompt_embeds"
    )


def _load(
    kind: Any, info: ModelInfo, folder: Path, name: str, device: torch.device, dtype: torch.dtype
) -> Any:
    source, options = _locate(info, folder, name)
    with _blamed_on(name, source), warnings.catch_warnings():
        # diffusers 0.42's own ControlNet builds a class that diffusers calls deprecated
        warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated", FutureWarning)
        module = kind.from_pretrained(source, torch_dtype=dtype, **options)
    return module.to(device).eval().requires_grad_(False)


def _config(kind: Any, info: ModelInfo, folder: Path, name: str) -> dict[str, Any]:
    source, options = _locate(info, folder, name)
    with _blamed_on(name, source):
        return dict(kind.load_config(source, **options))


@contextmanager
def _blamed_on(name: str, source: Path | str) -> Iterator[None]:
    """Turns what the loading libraries raise into an error that names the component."""
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ConfigurationError(
            f"{name}: cannot be loaded from {source}: {error}", field=name
        ) from error


def _check_components(info: ModelInfo) -> None:
    for name in info.components:
        if name not in _COMPONENTS:
            known = ", ".join(_COMPONENTS)
            raise ConfigurationError(
                f"components.{name}: no such component", field=name, allowed=f"one of {known}"
            )


def _locate(info: ModelInfo, folder: Path, name: str) -> tuple[str, dict[str, str]]:
    """A component's source for `from_pretrained`, with `subfolder` and `revision` where they apply."""
    stated = info.components.get(name)
    if stated is None:
        return str(folder), {"subfolder": name}
    parts = _SOURCE.fullmatch(stated)
    if parts is None:
        raise ConfigurationError(
            f"components.{name}: {stated!r}", field=name, allowed="SOURCE[@REVISION][:SUBFOLDER]"
        )
    local = folder / parts["source"]
    options = {key: parts[key] for key in ("revision", "subfolder") if parts[key]}
    return str(local if local.is_dir() else parts["source"]), options
