import numpy as np
import torch

from serve_app.fidelity.backprojection import backproject
from serve_app.resample import resize
from training.critic import Adversary
from training.examples import Resampler, make_example
from training.flow import GUIDANCE_NEUTRAL
from training.losses import pixel_loss, ssim


def _crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 140, 140, 3), np.uint8)


def test_the_matrices_are_the_services_resampler_and_backprojection() -> None:
    rng = np.random.default_rng(1)
    large, small = rng.random((64, 64, 3), np.float32), rng.random((16, 16, 3), np.float32)
    resampler = Resampler(64, 4)
    tensor, source = (torch.from_numpy(x.transpose(2, 0, 1).copy()) for x in (large, small))
    shrunk = resampler.shrink(tensor).numpy().transpose(1, 2, 0)
    assert np.allclose(shrunk, resize(large, 16, 16), atol=1e-5)
    ours = resampler.backproject(tensor, source, 3).clamp(0, 1).numpy().transpose(1, 2, 0)
    assert np.allclose(ours, backproject(large, small, 3), atol=1e-4)


def test_an_example_at_neutral_guidance_wants_the_original() -> None:
    example = make_example(_crops(), 4, Resampler(128, 4), np.random.default_rng(2))
    assert example.source.shape == (4, 3, 32, 32)
    assert example.control.shape == example.original.shape == (4, 3, 128, 128)
    assert (example.guidance[::2] == GUIDANCE_NEUTRAL).all()
    assert torch.equal(example.wanted[::2], example.original[::2])


def test_a_perfect_picture_has_no_loss() -> None:
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    loss, absolute = pixel_loss(picture, picture)
    assert loss.abs() < 1e-6
    assert absolute == 0
    assert ssim(picture, torch.zeros_like(picture)) < 0.3


def test_the_critic_learns_to_tell_soft_from_sharp_and_objects() -> None:
    torch.manual_seed(0)
    adversary = Adversary()
    control = torch.zeros(2, 3, 32, 32)
    original = torch.randn(2, 3, 32, 32) * 0.3
    made = (original * 0.2).requires_grad_()
    losses = [adversary.learn(original, made, control) for _ in range(30)]
    assert losses[-1] < losses[0]
    guidance = torch.full((2,), GUIDANCE_NEUTRAL)
    pixels, _ = pixel_loss(made, original)
    objection = adversary.objection(original, made, control, guidance, pixels)
    (gradient,) = torch.autograd.grad(objection, made)
    assert gradient.abs().sum() > 0
    assert adversary.objection(original, made, control, torch.ones(2), pixels) == 0
