"""Random LoRA adapters of a tiny model, made with peft and saved as diffusers' trainers save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FluxControlNetPipeline, FluxTransformer2DModel
from peft import LoraConfig, get_peft_model_state_dict

TARGETS = ["to_q", "to_k", "to_out.0", "add_k_proj", "ff.net.0.proj", "proj_mlp", "norm1.linear"]


def save_tiny_lora(
    model: Path, folder: Path, seed: int = 1, with_metadata: bool = False, **config: Any
) -> None:
    """Writes an adapter's folder.

    Args:
        model: The model's folder.
        folder: The adapter's.
        seed: Of its weights.
        with_metadata: Whether the file states its configuration.
        config: Of peft's `LoraConfig`; rank 4 on the usual layers where it says nothing.
    """
    transformer = FluxTransformer2DModel.from_pretrained(model, subfolder="transformer")
    stated = LoraConfig(**{"r": 4, "lora_alpha": 4, "target_modules": TARGETS} | config)
    transformer.add_adapter(stated, "made")
    tensors = get_peft_model_state_dict(transformer, adapter_name="made")
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        tensors[name] = torch.randn(tensor.shape, generator=generator) * 0.3
    metadata = transformer.peft_config["made"].to_dict() if with_metadata else None
    FluxControlNetPipeline.save_lora_weights(
        folder, transformer_lora_layers=tensors, transformer_lora_adapter_metadata=metadata
    )
