"""Folders of depth-estimation models of random weights, as transformers saves them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
)
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil


def build_tiny_depth(folder: Path, kind: str = "depth_anything") -> Path:
    """Writes a model that reads pictures of 28 x 28 px."""
    torch.manual_seed(0)
    network = _dpt() if kind == "dpt" else _depth_anything()
    with torch.no_grad():  # they are born nearly blind: every weight is made to matter
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight[0].numel() ** -0.5)
    network.save_pretrained(folder)
    DPTImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def _dpt() -> DPTForDepthEstimation:
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=28,
        patch_size=7,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    return DPTForDepthEstimation(config)


def _depth_anything() -> DepthAnythingForDepthEstimation:
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=28,
        patch_size=7,
        out_indices=[1, 2, 3, 4],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        patch_size=7,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
    )
    return DepthAnythingForDepthEstimation(config)
