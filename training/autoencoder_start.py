"""How the autoencoder starts: as a linear map of 4 x 4 patches to 16 numbers and back.

The encoder gathers each patch and projects it on the leading principal components, the decoder
undoes that, and the residual branches start small. Training then learns only what a linear map
cannot do.
"""

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from torch import Tensor, nn

from training.config import AUTOENCODER, LATENT_CHANNELS, VAE_SCALE

_WHITENING_POWER = 0.6  # 1 would make every component unit variance; 0 would leave them as they are
_LATENT_STD = 0.7  # the decoder squashes at 3, so typical latents must stay well inside
_BRANCH_GAIN = 0.1


def build_autoencoder(crops: NDArray[np.uint8]) -> AutoencoderTiny:
    """Make an autoencoder with the linear-path start.

    Args:
        crops: pictures to measure the principal components on, shape (n, height, width, 3).

    Returns:
        The autoencoder, not yet trained.
    """
    model = AutoencoderTiny(**AUTOENCODER)
    to_latent, to_patch, mean = _principal_components(crops)
    for module in model.modules():
        if type(module).__name__ == "AutoencoderTinyBlock":
            with torch.no_grad():
                module.conv[-1].weight.mul_(_BRANCH_GAIN)
                module.conv[-1].bias.zero_()
    _start_encoder(model.encoder.layers, to_latent, mean)
    _start_decoder(model.decoder.layers, to_patch, mean)
    return model


def _principal_components(crops: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor]:
    """Whitened projection (16, 48) of a patch of values 0 to 1, its inverse (48, 16), the mean."""
    size = VAE_SCALE
    patches = np.concatenate(
        [
            crop[: size * 16, : size * 16]
            .reshape(16, size, 16, size, 3)
            .transpose(0, 2, 4, 1, 3)
            .reshape(256, -1)
            for crop in crops[:: max(1, len(crops) // 500)]
        ]
    )
    values = patches.astype(np.float64) / 255.0
    mean = values.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(np.cov((values - mean).T))
    order = np.argsort(eigenvalues)[::-1][:LATENT_CHANNELS]
    scales = eigenvalues[order] ** (-_WHITENING_POWER / 2)
    scales *= _LATENT_STD / np.sqrt(np.mean(eigenvalues[order] * scales**2))
    to_latent = torch.tensor(vectors[:, order].T * scales[:, None], dtype=torch.float32)
    to_patch = torch.tensor(vectors[:, order] / scales, dtype=torch.float32)
    return to_latent, to_patch, torch.tensor(mean, dtype=torch.float32)


@torch.no_grad()
def _start_encoder(layers: nn.Sequential, to_latent: Tensor, mean: Tensor) -> None:
    """Space to depth twice (3 to 12 to 48 channels), then the projection; channel order c, y, x."""
    convs: list[Any] = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    first, half, quarter, last = convs
    first.weight[:3].zero_()
    first.bias[:3].zero_()
    for colour in range(3):
        first.weight[colour, colour, 1, 1] = 1.0
    half.weight[:12].zero_()
    quarter.weight.zero_()
    for colour in range(3):
        for y in range(2):
            for x in range(2):
                half.weight[colour * 4 + y * 2 + x, colour, 1 + y, 1 + x] = 1.0
        for y in range(4):
            for x in range(4):
                source = colour * 4 + (y % 2) * 2 + x % 2
                quarter.weight[colour * 16 + y * 4 + x, source, 1 + y // 2, 1 + x // 2] = 1.0
    last.weight.zero_()
    last.weight[:, :, 1, 1] = to_latent
    last.bias.copy_(-to_latent @ mean)


@torch.no_grad()
def _start_decoder(layers: nn.Sequential, to_patch: Tensor, mean: Tensor) -> None:
    """Back to 48 pixel values, then two upsamplings that part them as well as a plain filter can."""
    convs: list[Any] = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    first, half, full, last = convs
    first.weight.zero_()
    first.weight[:, :, 1, 1] = to_patch
    first.bias.copy_(mean)
    for conv, cell in ((half, 4), (full, 2)):
        conv.weight.mul_(0.5)
        side = cell // 2
        outputs = 3 * side * side
        conv.weight[:outputs].zero_()
        for output in range(outputs):
            colour, y, x = output // side**2, output // side % side, output % side
            for dy in range(2):
                for dx in range(2):
                    source = colour * cell**2 + (dy * side + y) * cell + dx * side + x
                    taps = torch.outer(_PHASE[dy], _PHASE[dx])
                    conv.weight[output, source] = taps
    last.weight.zero_()
    last.bias.zero_()
    for colour in range(3):
        last.weight[colour, colour, 1, 1] = 1.0


# After a nearest upsampling, these taps give the first half exactly on the first phase and the
# second half exactly on the second, up to half a difference with the neighbour.
_PHASE = (torch.tensor([-0.5, 0.5, 0.5]), torch.tensor([0.5, 0.5, -0.5]))
