"""Loads a model folder onto a device. The embedded model and FLUX.1-dev come through the same lines.

A folder holds diffusers' layout (`transformer/ controlnet/ vae/ scheduler/`) and `tessera.json`; a part may
live elsewhere, see `models.source`. Text encoders are not loaded: a replica needs but the empty prompt.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from serve_app.contracts import ModelInfo
from serve_app.diffusion.acceleration import accelerate
from serve_app.diffusion.adapters import Adapters
from serve_app.diffusion.latents import TOKEN_LATENTS
from serve_app.diffusion.prompts import Prompt, null_prompt
from serve_app.errors import ConfigurationError
from serve_app.models.catalog import read_model_info
from serve_app.models.loras import find_loras
from serve_app.models.memory import plan_memory
from serve_app.models.source import check_components, find_part
from serve_app.settings import Settings

_NOT_NETWORKS = ("vae", "scheduler")


@dataclass(frozen=True)
class FluxModel:
    """A loaded model. All modules are in evaluation mode, on `device`, in `dtype`.

    Attributes:
        info: Its `tessera.json`.
        transformer: `FluxTransformer2DModel`.
        controlnets: `FluxControlNetModel` by the component that `ModelInfo.controls` name.
        adapters: The LoRA adapters that the transformer can use.
        vae: `AutoencoderKL` or another autoencoder that `FluxControlNetPipeline` accepts.
        scheduler_config: The configuration of `FlowMatchEulerDiscreteScheduler`.
        null_prompt: Embeddings of the empty prompt.
        vae_scale: Pixels to one latent pixel, along a side.
        offloaded: Whether the networks' blocks are on the device only while they run.
    """

    info: ModelInfo
    transformer: Any
    controlnets: dict[str, Any]
    adapters: Adapters
    vae: Any
    scheduler_config: dict[str, Any]
    null_prompt: Prompt
    vae_scale: int
    device: torch.device
    dtype: torch.dtype
    offloaded: bool = False

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


def load_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    settings: Settings | None = None,
    free_bytes: int | None = None,
) -> FluxModel:
    """Loads every part of a model that denoising needs, and makes it as fast as the settings say.

    Args:
        folder: With `tessera.json`, see `models.catalog.find_model`.
        device: Where the weights go.
        dtype: What they are cast to; files may hold another type.
        settings: Of the model's cache and adapters, the prompts' length and the engine.
        free_bytes: Memory that the replica may take; None asks a CUDA device and bounds no other.

    Raises:
        ConfigurationError: naming what is missing or does not fit together, or the bytes that it lacks.
    """
    settings = settings or Settings()
    info = read_model_info(folder)
    parts = _find_parts(info, folder, settings.model.cache_dir)
    # first: its encoders, where they must run, need the memory that the networks will take
    place = (settings.prompts.tokens, device, dtype, settings.model.cache_dir)
    prompt = null_prompt(folder, info, *place)
    _check_memory(info, parts, device, dtype, settings, prompt, free_bytes)
    vae = load_vae(parts["vae"], dtype).to(device)
    vae_scale = 2 ** (len(vae.config.block_out_channels) - 1)
    _check_grid(info, folder, vae_scale)
    transformer, controlnets = load_networks(parts, dtype)
    _check_modes(info, folder, controlnets)
    # before blocks are quantised or compiled
    adapters = Adapters(transformer, settings.model.loras)
    accelerate(transformer, controlnets, settings.engine, device, prompt)
    return FluxModel(
        info=info,
        transformer=transformer,
        controlnets=controlnets,
        adapters=adapters,
        vae=vae,
        scheduler_config=_scheduler_config(parts["scheduler"]),
        null_prompt=prompt,
        vae_scale=vae_scale,
        device=device,
        dtype=dtype,
        offloaded=settings.engine.offload,
    )


def _find_parts(info: ModelInfo, folder: Path, cache_dir: str | None) -> dict[str, Path]:
    """The folders of the transformer, each control's ControlNet, the autoencoder and the scheduler."""
    check_components(info)
    controls = dict.fromkeys(control.component for control in info.controls.values())
    names = ("transformer", *controls, *_NOT_NETWORKS)
    return {name: find_part(info, folder, name, cache_dir) for name in names}


def load_networks(parts: dict[str, Path], dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """The transformer and the ControlNets, still in host memory."""
    from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    transformer = _load(FluxTransformer2DModel, "transformer", parts["transformer"], dtype)
    controls = [name for name in parts if name not in ("transformer", *_NOT_NETWORKS)]
    return transformer, {
        name: _load(FluxControlNetModel, name, parts[name], dtype) for name in controls
    }


def load_vae(folder: Path, dtype: torch.dtype) -> Any:
    """The autoencoder, still in host memory.

    Raises:
        ConfigurationError: if it is of another kind, missing or broken.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny

    name = _config(AutoencoderKL, "vae", folder)["_class_name"]
    known = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderTiny)}
    if name not in known:
        raise ConfigurationError(
            f"{folder}: vae is a {name}", field="vae", allowed=" or ".join(known)
        )
    # its convolutions decode a tile in two thirds of the time
    return _load(known[name], "vae", folder, dtype).to(memory_format=torch.channels_last)


def _scheduler_config(folder: Path) -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return _config(FlowMatchEulerDiscreteScheduler, "scheduler", folder)


def _check_memory(
    info: ModelInfo,
    parts: dict[str, Path],
    device: torch.device,
    dtype: torch.dtype,
    settings: Settings,
    prompt: Prompt,
    free_bytes: int | None,
) -> None:
    """Refuses what will not fit, before a weight is read."""
    if free_bytes is None and device.type == "cuda":
        free_bytes = torch.cuda.mem_get_info(device)[0]
    if free_bytes is not None:
        networks = {name: folder for name, folder in parts.items() if name != "scheduler"}
        loras = list(find_loras(settings.model.loras).values())
        tokens = prompt.sequence.shape[1]
        plan = plan_memory(info, networks, dtype.itemsize, settings.engine, tokens, loras)
        plan.check(free_bytes)


def _check_grid(info: ModelInfo, folder: Path, vae_scale: int) -> None:
    if info.align_px != vae_scale * TOKEN_LATENTS:
        raise ConfigurationError(
            f"{folder}: align_px is {info.align_px}, but one token of this model covers "
            f"{vae_scale * TOKEN_LATENTS} px",
            field="align_px",
        )


def _check_modes(info: ModelInfo, folder: Path, controlnets: dict[str, Any]) -> None:
    for name, control in info.controls.items():
        union = bool(controlnets[control.component].union)
        if union != (control.mode is not None):
            raise ConfigurationError(
                f"{folder}: controls.{name}: {control.component} is {'a' if union else 'no'} "
                f"ControlNet-Union, so it takes {'a' if union else 'no'} mode",
                field=f"controls.{name}.mode",
            )


def _load(kind: Any, name: str, folder: Path, dtype: torch.dtype) -> Any:
    with _blamed_on(name, folder), warnings.catch_warnings():
        # diffusers 0.42's own ControlNet builds a class that diffusers calls deprecated
        warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated", FutureWarning)
        return kind.from_pretrained(folder, torch_dtype=dtype).eval().requires_grad_(False)


def _config(kind: Any, name: str, folder: Path) -> dict[str, Any]:
    with _blamed_on(name, folder):
        return dict(kind.load_config(folder))


@contextmanager
def _blamed_on(name: str, source: Path) -> Iterator[None]:
    """Turns what the loading libraries raise into an error that names the part."""
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ConfigurationError(
            f"{name}: cannot be loaded from {source}: {error}", field=name
        ) from error
