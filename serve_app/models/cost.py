"""What a step of a model costs: read once from its configuration, counted for any tile.

It refuses to load a network, and to know how fast an accelerator is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from serve_app.model_info import ModelInfo
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.flops import Config, image_tokens, step_flop
from serve_app.models.memory import read_config
from serve_app.models.source import find_part
from serve_app.settings import ModelSettings

TRANSFORMER = "transformer"


class StepCost:
    """Operations of one model's steps; travels between processes.

    Args:
        info: The model.
        configs: Of its transformer and its ControlNets, by component.
    """

    def __init__(self, info: ModelInfo, configs: Mapping[str, Config]) -> None:
        self._info = info
        self._configs = configs

    @classmethod
    def read(cls, settings: ModelSettings) -> Self:
        """Reads what a model's folder says.

        Raises:
            ConfigurationError: if the model cannot be found.
        """
        folder = find_model(settings.source, settings.cache_dir)
        info = read_model_info(folder)
        names = {TRANSFORMER, *(control.component for control in info.controls.values())}
        places = {name: find_part(info, folder, name, settings.cache_dir) for name in names}
        return cls(info, {name: read_config(place) for name, place in places.items()})

    def flop(
        self, size: tuple[int, int], controls: Sequence[str], text_tokens: int, passes: int
    ) -> float:
        """Operations of one step of one tile.

        Args:
            size: The tile's height and width, px.
            controls: Names of the controls that run; once, however many passes there are.
            text_tokens: Length of the prompt's sequence.
            passes: 2 where a negative prompt acts, else 1.
        """
        transformer = self._configs[TRANSFORMER]
        networks = [self._configs[self._info.controls[name].component] for name in controls]
        place = image_tokens(*size, self._info.align_px), text_tokens
        more = (passes - 1) * step_flop(transformer, [], *place)
        return more + step_flop(transformer, networks, *place)
