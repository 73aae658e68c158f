"""A small patch adversary that asks the last phase for the sharpness of photographs.

Absolute errors alone end in the average of all pictures that a source could stand for, which is
soft. The critic compares fine detail, patch by patch, with that of originals; its say grows with
guidance, so the guidance scale stays a knob for detail.
Sources: Ledig et al. 2017 (an adversary for super-resolution); Jolicoeur-Martineau 2018
(relativistic scores); Esser et al. 2021 (weighing by the ratio of gradients).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

_RATE = 3e-4
_RATIO = 0.4  # of the pixel loss's gradient, at neutral guidance
_LEAST_GUIDANCE = 1.0
_GUIDANCE_SPAN = 2.5  # neutral guidance less the least
_WIDTHS = (6, 32, 64, 64, 64)
_STRIDES = (1, 2, 2, 1)


class Critic(nn.Module):
    """Scores patches of a picture, given its control picture."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in zip(_WIDTHS[:-1], _WIDTHS[1:], _STRIDES, strict=True):
            layers += [
                spectral_norm(nn.Conv2d(before, after, 3, stride, 1)),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(_WIDTHS[-1], 1, 3, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, picture: Tensor, control: Tensor) -> Tensor:
        """Score patches: two (batch, 3, height, width) pictures to (batch, 1, h, w) scores."""
        with torch.autocast("cpu", torch.bfloat16):
            scores: Tensor = self.layers(torch.cat([4 * (picture - control), control], dim=1))
        return scores.float()


class Adversary:
    """A critic and its optimiser."""

    def __init__(self) -> None:
        self.critic = Critic()
        self.optimizer = torch.optim.AdamW(
            self.critic.parameters(), lr=_RATE, betas=(0.5, 0.98), weight_decay=0.0
        )

    def learn(self, original: Tensor, made: Tensor, control: Tensor) -> float:
        """Teach the critic on one batch; returns its loss (1.39 where it cannot tell)."""
        real, fake = self.critic(original, control), self.critic(made.detach(), control)
        loss = functional.softplus(fake.mean() - real).mean()
        loss = loss + functional.softplus(fake - real.mean()).mean()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return float(loss.detach())

    def objection(
        self, original: Tensor, made: Tensor, control: Tensor, guidance: Tensor, pixel_loss: Tensor
    ) -> Tensor:
        """What the critic adds to the generator's loss, weighed against the pixel loss.

        Args:
            original: what photographs look like, (batch, 3, height, width).
            made: the generator's pictures, with gradients.
            control: their control pictures.
            guidance: of each row, shape (batch,).
            pixel_loss: the loss to weigh against; a function of ``made``.

        Returns:
            A scalar whose gradient at ``made`` is a set share of the pixel loss's.
        """
        with torch.no_grad():
            truth = self.critic(original, control).mean()
        rows = functional.softplus(truth - self.critic(made, control)).mean(dim=(1, 2, 3))
        say = ((guidance - _LEAST_GUIDANCE) / _GUIDANCE_SPAN).clamp_min(0)
        objection = (rows * say).mean()
        (towards,) = torch.autograd.grad(pixel_loss, made, retain_graph=True)
        (against,) = torch.autograd.grad(rows.mean(), made, retain_graph=True)
        weight = _RATIO * towards.norm() / against.norm().clamp_min(1e-8)
        weighed: Tensor = weight.detach() * objection
        return weighed

    def state(self) -> dict[str, Any]:
        """Tell what a checkpoint must keep."""
        return {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
