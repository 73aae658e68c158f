"""The transformer and the ControlNet as one function from noisy latents to a velocity.

Both are FLUX's own classes; this file holds how they are called, as diffusers' pipeline calls them.
How they start is told in :mod:`training.start`.
"""

import torch
from diffusers import FluxControlNetModel, FluxTransformer2DModel
from torch import Tensor, nn

from training.config import PATCH, TEXT_DIM, TEXT_TOKENS


class FluxPair(nn.Module):
    """A FLUX transformer with its ControlNet.

    Args:
        transformer: predicts the velocity.
        controlnet: reads the control latents.
    """

    def __init__(
        self, transformer: FluxTransformer2DModel, controlnet: FluxControlNetModel
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.controlnet = controlnet

    def forward(
        self,
        noisy: Tensor,
        control: Tensor,
        sigma: Tensor,
        guidance: Tensor,
        control_scale: float = 1.0,
    ) -> Tensor:
        """Predict the velocity (noise minus picture).

        Args:
            noisy: latents at ``sigma``, shape (batch, channels, height, width), even sides.
            control: latents of the control picture, same shape.
            sigma: noise level of each row, 0 to 1, shape (batch,).
            guidance: detail guidance of each row, shape (batch,).
            control_scale: weight of the ControlNet's contribution.

        Returns:
            Velocity, same shape as ``noisy``.
        """
        batch, _, height, width = noisy.shape
        tokens = pack(noisy)
        shared = {
            "timestep": sigma,
            "guidance": guidance,
            "pooled_projections": torch.zeros(batch, TEXT_DIM),
            "encoder_hidden_states": torch.zeros(batch, TEXT_TOKENS, TEXT_DIM),
            "txt_ids": torch.zeros(TEXT_TOKENS, 3),
            "img_ids": token_ids(height // PATCH, width // PATCH),
            "return_dict": False,
        }
        double, single = self.controlnet(
            hidden_states=tokens,
            controlnet_cond=pack(control),
            conditioning_scale=control_scale,
            **shared,
        )
        (velocity,) = self.transformer(
            hidden_states=tokens,
            controlnet_block_samples=double,
            controlnet_single_block_samples=single,
            **shared,
        )
        return unpack(velocity, height, width)


def pack(latents: Tensor) -> Tensor:
    """Gather 2 x 2 latents into tokens: (b, c, h, w) to (b, h/2 * w/2, 4c), as FLUX's pipeline."""
    batch, channels, height, width = latents.shape
    cells = latents.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH**2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo :func:`pack`; height and width are in latents."""
    batch, _, channels = tokens.shape
    cells = tokens.reshape(
        batch, height // PATCH, width // PATCH, channels // PATCH**2, PATCH, PATCH
    )
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // PATCH**2, height, width)


def token_ids(rows: int, columns: int) -> Tensor:
    """Position ids of image tokens, shape (rows * columns, 3): zero, row, column."""
    grid = torch.zeros(rows, columns, 3)
    grid[..., 1] = torch.arange(rows)[:, None]
    grid[..., 2] = torch.arange(columns)[None, :]
    return grid.reshape(-1, 3)
