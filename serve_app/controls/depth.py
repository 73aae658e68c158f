"""Depth from one picture, by a transformers depth-estimation model such as Depth Anything or DPT.

The only module outside `diffusion` and the runner that loads torch, and only where a model offers a control
that reads depth. It refuses to know tiles: the estimator sees the whole picture, shrunk to its own size.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from serve_app.controls.pictures import DepthEstimator
from serve_app.errors import ConfigurationError
from serve_app.levels import Levels, Pixels, to_levels
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.source import DEPTH_ESTIMATOR, find_part
from serve_app.settings import ModelSettings

logger = logging.getLogger("tessera.controls")

_LEAST_SPAN = 1e-12  # of a picture that is equally far everywhere


def open_depth(model: ModelSettings) -> DepthEstimator | None:
    """Loads the depth estimator of a model that offers such a control; for any other None, and no torch.

    Raises:
        ConfigurationError: if the model cannot be found, or its estimator cannot be loaded.
    """
    folder = find_model(model.source, model.cache_dir)
    info = read_model_info(folder)
    if all(control.picture != "depth" for control in info.controls.values()):
        return None
    return load_depth(find_part(info, folder, DEPTH_ESTIMATOR, model.cache_dir))


def load_depth(folder: Path) -> DepthEstimator:
    """Loads an estimator onto the CPU.

    Args:
        folder: With `config.json`, `model.safetensors` and `preprocessor_config.json`. The network must predict
            nearness (inverse depth), as DPT and the relative Depth Anything do.

    Raises:
        ConfigurationError: if it is no such model.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    try:
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        network = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"{DEPTH_ESTIMATOR}: cannot be loaded from {folder}: {error}", field=DEPTH_ESTIMATOR
        ) from error
    logger.info("controls.depth_loaded", extra={"folder": str(folder)})

    def estimate(colour: Levels) -> Levels:
        samples = (colour >> 8).astype(np.uint8)
        inputs = processor(images=samples, input_data_format="channels_last", return_tensors="pt")
        with torch.inference_mode():
            found = network(**inputs).predicted_depth[0].float().numpy()
        return _spread(found)

    return estimate


def _spread(nearness: Pixels) -> Levels:
    """Spreads a picture's farthest to nearest over all levels, as ControlNets see it in training."""
    low, high = float(nearness.min()), float(nearness.max())
    return to_levels((nearness - low)[:, :, None] / max(high - low, _LEAST_SPAN))
