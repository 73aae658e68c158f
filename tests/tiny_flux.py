"""A FLUX.1-dev-shaped model folder of tiny random weights, text encoders and tokenizers included."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxTransformer2DModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

torch.set_num_threads(1)  # tensors this small gain nothing from more; the threads would only wait

FLUX_SHAPE = {
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 6, 6),
    "guidance_embeds": True,
}
TILE_PX = 32
UNION_CONTROLS = {
    "upscale": {"picture": "source"},
    "canny": {"picture": "canny", "component": "union", "mode": 0},
    "depth": {"picture": "depth", "component": "union", "mode": 1},
    "pose": {"picture": "given", "component": "union", "mode": 2, "scale": 0.5},
}


def _randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Makes every weight matter: ControlNets are born with zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            spread = 0.15 if weight.ndim == 1 else 0.7 / weight[0].numel() ** 0.5
            weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
    return module


def _save_text_encoders(folder: Path) -> None:
    """CLIP and T5 of random weights; their tokenizers know letters, so that any two prompts differ."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    clip_words = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(letter + "</w>" for letter in letters),
    ]
    clip_tokenizer = CLIPTokenizer(
        vocab={word: number for number, word in enumerate(clip_words)},
        merges=[],
        model_max_length=77,
    )
    t5_words = ["<pad>", "</s>", "<unk>", "▁", *letters]
    t5_tokenizer = T5Tokenizer(
        vocab=[(word, -float(number > 2)) for number, word in enumerate(t5_words)],
        extra_ids=0,
        model_max_length=512,
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_words),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            projection_dim=32,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    t5 = T5EncoderModel(
        T5Config(vocab_size=len(t5_words), d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2)
    )
    _randomise(clip, 3).save_pretrained(folder / "text_encoder")
    _randomise(t5, 4).save_pretrained(folder / "text_encoder_2")
    clip_tokenizer.save_pretrained(folder / "tokenizer")
    t5_tokenizer.save_pretrained(folder / "tokenizer_2")


def build_tiny_flux(
    folder: Path,
    dynamic_shift: bool = True,
    takes_prompt: bool = True,
    with_text_encoders: bool = True,
    with_union: bool = False,
) -> Path:
    """Writes the folder: a model that loads in `FluxControlNetPipeline` and in Tessera.

    With a ControlNet-Union as well, it offers `canny`, `depth` and `pose`.
    """
    if with_text_encoders:
        _save_text_encoders(folder)
    transformer = FluxTransformer2DModel(**FLUX_SHAPE)
    controlnet = FluxControlNetModel(**FLUX_SHAPE | {"num_layers": 1, "num_single_layers": 1})
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.36,
        shift_factor=0.11,
    )
    parts = {"transformer": transformer, "controlnet": controlnet, "vae": vae}
    if with_union:
        parts["union"] = FluxControlNetModel(
            **FLUX_SHAPE | {"num_layers": 1, "num_single_layers": 1, "num_mode": 3}
        )
    for seed, (name, module) in enumerate(parts.items()):
        _randomise(module, seed).save_pretrained(folder / name)
    FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=dynamic_shift, shift=1.0 if dynamic_shift else 2.0
    ).save_pretrained(folder / "scheduler")
    generator = torch.Generator().manual_seed(9)
    embeds = {
        "prompt_embeds": torch.randn(1, 5, 32, generator=generator),
        "pooled_prompt_embeds": torch.randn(1, 32, generator=generator),
    }
    save_file(embeds, folder / "prompt_embeds.safetensors")
    (folder / "tessera.json").write_text(
        json.dumps(
            {
                "name": "tiny-flux",
                "description": "Random weights for tests.",
                "license": "Apache-2.0",
                "tile_px": TILE_PX,
                "overlap_px": 8,
                "align_px": 8,
                "takes_prompt": takes_prompt,
                "takes_true_cfg": True,
                "judges_tiles": False,
                "defaults": {"steps": 2, "guidance_scale": 3.5, "control_scale": 0.6},
            }
            | ({"controls": UNION_CONTROLS} if with_union else {})
        )
    )
    return folder
