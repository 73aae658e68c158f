"""Write a model folder: diffusers' layout, fp16 weights, the null prompt and ``tessera.json``.

What stands in ``tessera.json`` is the service's contract; the defaults there were chosen by
``python -m training evaluate`` on held-out photographs.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file

from training.config import (
    NATIVE_SCALE,
    PATCH,
    TEXT_DIM,
    TEXT_TOKENS,
    VAE_SCALE,
)
from training.networks import FluxPair

TESSERA: dict[str, Any] = {
    "name": "mini",
    "description": "FLUX in small: an upscaler for photographs that runs on a laptop's CPU.",
    "license": "Apache-2.0",
    "native_scale": NATIVE_SCALE,
    "tile_px": 288,
    "overlap_px": 32,
    "align_px": VAE_SCALE * PATCH,
    "takes_prompt": False,
    "takes_true_cfg": False,
    "backprojection_rounds": 3,
    "residual_cache": {"threshold": 0.15},
    "defaults": {
        "scale": 4,
        "steps": 1,
        "strength": 1.0,
        "guidance_scale": 5.0,
        "control_scale": 1.0,
        "control_start": 0.0,
        "control_end": 1.0,
        "true_cfg_scale": 1.0,
    },
    "limits": {
        "scale": [1, 8],
        "steps": [1, 50],
        "guidance_scale": [1, 8],
        "control_scale": [0, 1.5],
    },
}
SHIFT = 1.0


def export(folder: Path, autoencoder: AutoencoderTiny, pair: FluxPair) -> None:
    """Write the model folder; the model card is written by :mod:`training.card`.

    Args:
        folder: created where missing; files of an earlier export are replaced.
        autoencoder: with its latents' shift and scale measured.
        pair: trained transformer and ControlNet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in (
        ("vae", autoencoder),
        ("transformer", pair.transformer),
        ("controlnet", pair.controlnet),
    ):
        copy.deepcopy(network).to(torch.float16).save_pretrained(folder / name)
        _tidy(folder / name / "config.json")
        (folder / name / "diffusion_pytorch_model.safetensors").chmod(0o644)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT, use_dynamic_shifting=False)
    scheduler.save_pretrained(folder / "scheduler")
    save_file(
        {
            "prompt_embeds": torch.zeros(1, TEXT_TOKENS, TEXT_DIM),
            "pooled_prompt_embeds": torch.zeros(1, TEXT_DIM),
        },
        folder / "prompt_embeds.safetensors",
    )
    (folder / "prompt_embeds.safetensors").chmod(0o644)
    _write_json(folder / "model_index.json", _model_index())
    _write_json(folder / "tessera.json", TESSERA)


def _tidy(config: Path) -> None:
    """Drop what diffusers saves without need.

    AutoencoderTiny derives ``block_out_channels`` and warns at each load where it finds it stored;
    the folder that weights were read from tells of one machine only.
    """
    content = json.loads(config.read_text())
    for name in ("block_out_channels", "_name_or_path"):
        content.pop(name, None)
    _write_json(config, content)


def _model_index() -> dict[str, Any]:
    absent = [None, None]
    return {
        "_class_name": "FluxControlNetPipeline",
        "controlnet": ["diffusers", "FluxControlNetModel"],
        "feature_extractor": absent,
        "image_encoder": absent,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": absent,
        "text_encoder_2": absent,
        "tokenizer": absent,
        "tokenizer_2": absent,
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderTiny"],
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
