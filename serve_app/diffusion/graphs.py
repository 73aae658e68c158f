"""CUDA graphs of a pass through a network: recorded once for each shape, then replayed in one launch.

A replay reads and writes the same addresses as the recording. So inputs are copied into tensors that the
recording knows, and results are copied out before the next replay. What it refuses to know: what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

_WARM_UPS = (
    3  # as torch's documentation asks: what is chosen or allocated at a first call is not recorded
)

Replay = Callable[[], Any]


class Replayed:
    """A function of tensors that is recorded once for each shape of its arguments.

    Not for several threads, and only for what does the same whatever the tensors hold.

    Args:
        compute: Takes and returns tensors in lists, tuples and None.
        state: What else decides the course of `compute`, such as adapters that are on or off.
        record: Turns a call into its replay; None records CUDA graphs into a pool of memory of their own.
    """

    def __init__(
        self,
        compute: Callable[..., Any],
        state: Callable[[], Hashable] = lambda: None,
        record: Callable[[Replay], Replay] | None = None,
    ) -> None:
        self._compute = compute
        self._state = state
        self._record = record or _CudaRecorder()
        self._recorded: dict[Hashable, tuple[list[torch.Tensor], Replay]] = {}

    def __call__(self, *args: Any) -> Any:
        """Computes by replay; the first call with these shapes records."""
        leaves, structure = tree_flatten(args)
        # one tensor given twice, such as residuals that several blocks share, is copied once
        given = {id(leaf): leaf for leaf in leaves if isinstance(leaf, torch.Tensor)}
        places = {key: place for place, key in enumerate(given)}
        shape = tuple(places.get(id(leaf), leaf) for leaf in leaves)
        kinds = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in given.values())
        key = (self._state(), str(structure), shape, kinds)
        if key not in self._recorded:
            inputs = {name: tensor.clone() for name, tensor in given.items()}
            held = tree_unflatten([inputs.get(id(leaf), leaf) for leaf in leaves], structure)
            replay = self._record(lambda: self._compute(*held))
            self._recorded[key] = list(inputs.values()), replay
        inputs_held, replay = self._recorded[key]
        for held_tensor, tensor in zip(inputs_held, given.values(), strict=True):
            held_tensor.copy_(tensor)
        return tree_map_only(torch.Tensor, torch.clone, replay())


def replay_passes(walks: Iterable[Any], state: Callable[[], Hashable]) -> None:
    """Has each network's passes through its blocks replayed, all from one pool of memory; see `network.Walk`.

    Args:
        walks: Their `blocks` and `control` are exchanged.
        state: See `Replayed`.
    """
    record = _CudaRecorder()
    for walk in walks:
        walk.blocks = Replayed(walk.blocks, state, record)
        walk.control = Replayed(walk.control, state, record)


class _CudaRecorder:
    """Records CUDA graphs into one pool: they never run together, and results leave before the next replay."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Replay) -> Replay:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                compute()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = compute()

        def replay() -> Any:
            graph.replay()
            return results

        return replay
