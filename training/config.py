"""What is trained and for how long: the shapes of the three networks and the training plan.

Every number that a retraining might change stands here, with its reason.
"""

from dataclasses import dataclass
from typing import Any

LATENT_CHANNELS = 16
VAE_SCALE = 4
PATCH = 2  # FLUX packs 2 x 2 latents into one token
TOKEN_CHANNELS = LATENT_CHANNELS * PATCH**2
NATIVE_SCALE = 4
TEXT_DIM = 32
TEXT_TOKENS = 1

# AutoencoderTiny rather than AutoencoderKL: no GroupNorm, so a tile's values do not depend on what
# else the tile shows and neighbours agree where they overlap; it is also twice as fast on a CPU.
AUTOENCODER: dict[str, Any] = {
    "latent_channels": LATENT_CHANNELS,
    "encoder_block_out_channels": (48, 48, 48),  # 48 = 4 x 4 pixels x 3: room for a whole patch
    "decoder_block_out_channels": (48, 48, 48),
    "num_encoder_blocks": (0, 1, 1),
    "num_decoder_blocks": (2, 2, 1),
}

_FLUX: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": TOKEN_CHANNELS,
    "attention_head_dim": 32,
    "num_attention_heads": 8,  # one head for each of a token's eight neighbours
    "joint_attention_dim": TEXT_DIM,
    "pooled_projection_dim": TEXT_DIM,
    "axes_dims_rope": (4, 14, 14),
    "guidance_embeds": True,
}
TRANSFORMER: dict[str, Any] = {**_FLUX, "num_layers": 1, "num_single_layers": 4}
CONTROLNET: dict[str, Any] = {**_FLUX, "num_layers": 1, "num_single_layers": 1}


@dataclass(frozen=True)
class Plan:
    """How long each phase runs, and on how much data.

    Attributes:
        seed: of every random choice.
        crops: training crops cut from the photographs.
        rounds: variants (flips, degradations) of each crop that flow matching sees.
        autoencoder_steps: optimiser steps of the autoencoder.
        flow_steps: optimiser steps of flow matching.
        pixel_steps: optimiser steps on pixels, through the frozen decoder.
        sharpen_steps: as before, with a critic.
        threads: CPU threads.
    """

    seed: int = 0
    crops: int = 10_000
    rounds: int = 1
    autoencoder_steps: int = 3000
    flow_steps: int = 250
    pixel_steps: int = 2000
    sharpen_steps: int = 800
    threads: int = 2
