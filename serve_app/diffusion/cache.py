"""Which steps of a tile compute the whole stack, and what stands in for the stack at the others.

The stack is everything between a row's image tokens and its output norm: the transformer's blocks and all of
its ControlNets. What it adds to the tokens, the residual, changes slowly from step to step; where little has
changed, it is carried on along the straight line through the last two computed ones. A skipped step so adds the
whole residual, control included, exactly once. The choice depends on the row's own noise levels and settings
alone, never on pixels or company: it is made before the first step.

Source: TeaCache (arXiv 2411.19108): skip while the relative L1 change of what the timestep does to the first
block adds up to less than a threshold. TaylorSeer (arXiv 2503.06923): forecast instead of reuse.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch


def relative_change(new: torch.Tensor, old: torch.Tensor) -> float:
    """The L1 distance of two tensors in units of the old one's L1 norm."""
    return float((new - old).abs().sum() / old.abs().sum())


def computed_steps(
    changes: Sequence[float], conditions: Sequence[Hashable], threshold: float
) -> list[bool]:
    """Which steps compute the stack.

    Args:
        changes: For each step its signal's relative change since the step before; the first is not read.
        conditions: For each step what else the stack depends on, such as the control scales.
        threshold: A step is computed once the changes since the last computed one add up to this.

    Returns:
        One for each step. The first and the last are always computed, and so is one whose conditions are not
        those of the last computed step.
    """
    computed, drift = [True], 0.0
    known = conditions[0]
    for change, condition in zip(changes[1:], conditions[1:], strict=True):
        drift += change
        computed.append(not drift < threshold or condition != known)
        if computed[-1]:
            drift, known = 0.0, condition
    computed[-1] = True
    return computed


class History:
    """The last two residuals of one row in one pass.

    Holds 2 x tokens x width numbers.
    """

    def __init__(self) -> None:
        self._points: list[tuple[float, torch.Tensor]] = []
        self._conditions: Hashable = None

    def add(self, sigma: float, residual: torch.Tensor, conditions: Hashable) -> None:
        """Notes a computed residual.

        Args:
            sigma: Of the step; a step that is tried again replaces itself.
            residual: (N, width); kept as it is, so it must not be a view of a batch.
            conditions: What else it depends on; the past under other conditions is forgotten.
        """
        past = self._points if conditions == self._conditions else []
        self._points = [*(p for p in past if p[0] != sigma), (sigma, residual)][-2:]
        self._conditions = conditions

    def at(self, sigma: float) -> torch.Tensor:
        """The residual carried on to a later step's noise level, (N, width)."""
        last_sigma, last = self._points[-1]
        if len(self._points) < 2:
            return last
        first_sigma, first = self._points[0]
        return torch.lerp(first, last, (sigma - first_sigma) / (last_sigma - first_sigma))
