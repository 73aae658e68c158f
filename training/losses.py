"""How far a made picture is from the wanted one, for training."""

from torch import Tensor
from torch.nn import functional

_GRADIENT_WEIGHT = 0.5
_SSIM_WEIGHT = 0.1
_WINDOW = 7
_RANGE = 2.0  # pixels go from -1 to 1


def pixel_loss(made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute error of pixels and of their differences, and structural dissimilarity.

    Args:
        made: shape (batch, 3, height, width), about -1 to 1.
        wanted: same shape.

    Returns:
        The weighted sum, and the absolute error alone (without gradient).
    """
    error = made - wanted
    absolute = error.abs().mean()
    gradient = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    loss = absolute + _GRADIENT_WEIGHT * gradient + _SSIM_WEIGHT * (1 - ssim(made, wanted))
    return loss, absolute.detach()


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of the channels' mean over 7 x 7 windows.

    Source: Wang et al. 2004, with flat windows.
    """
    x, y = first.mean(dim=1, keepdim=True), second.mean(dim=1, keepdim=True)
    mean_x, mean_y, square_x, square_y, product = (
        functional.avg_pool2d(value, _WINDOW, 1) for value in (x, y, x * x, y * y, x * y)
    )
    spread_x, spread_y = square_x - mean_x**2, square_y - mean_y**2
    shared = product - mean_x * mean_y
    c1, c2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * shared + c2) / (spread_x + spread_y + c2)).mean()
