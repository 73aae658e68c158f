"""The plan is held to the files' weights and to the live tensors of FLUX.1-dev's full-size networks."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxControlNetModel, FluxTransformer2DModel
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from serve_app.contracts import ControlInfo, Priority
from serve_app.diffusion import quantization
from serve_app.diffusion.cache import History
from serve_app.errors import ConfigurationError
from serve_app.models import memory
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.memory import GIB, MemoryPlan, plan_memory
from serve_app.settings import EngineSettings
from tests.tiny_flux import build_tiny_flux

BF16 = torch.bfloat16
TILE_PX, TEXT, WIDTH = 1024, 512, 3072
TOKENS = (TILE_PX // 16) ** 2


def parts_of(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in ("transformer", "controlnet", "vae")}


def plan(folder: Path, itemsize: int = 4, text: int = 8, **chosen: Any) -> MemoryPlan:
    settings = EngineSettings(**chosen)
    return plan_memory(read_model_info(folder), parts_of(folder), itemsize, settings, text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    return build_tiny_flux(made, takes_prompt=False, with_text_encoders=False)


# Weights


@pytest.mark.parametrize("itemsize", [2, 4])
def test_weights_are_those_of_the_files_in_the_type_they_are_cast_to(folder: Path, itemsize: int):
    counted = plan(folder, itemsize).parts
    for name, kind in (
        ("transformer", FluxTransformer2DModel),
        ("controlnet", FluxControlNetModel),
        ("vae", AutoencoderKL),
    ):
        network = kind.from_pretrained(folder / name)
        assert counted[name] == sum(w.numel() for w in network.parameters()) * itemsize


def test_fp8_halves_what_it_acts_on(folder: Path):
    plain, quantised = plan(folder, 2).parts, plan(folder, 2, quantization="fp8").parts
    network = FluxTransformer2DModel.from_pretrained(folder / "transformer")
    heavy = [
        module.weight.numel()
        for block in (*network.transformer_blocks, *network.single_transformer_blocks)
        for path, module in block.named_modules()
        if quantization._is_heavy(module, path)
    ]
    assert len(heavy) == 2 * 12 + 2 * 5
    assert plain["transformer"] - quantised["transformer"] == sum(heavy)
    assert plain["vae"] == quantised["vae"]


def test_offload_leaves_two_blocks(folder: Path):
    network = FluxTransformer2DModel.from_pretrained(folder / "transformer")

    def size(module: torch.nn.Module) -> int:
        return sum(weight.numel() for weight in module.parameters())

    blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
    expected = size(network) - sum(map(size, blocks)) + 2 * max(map(size, blocks))
    assert plan(folder, 2, offload=True).parts["transformer"] == 2 * expected


def test_adapters_take_the_room_of_the_largest(folder: Path, tmp_path: Path):
    for rank in (2, 4):
        save_file({"a": torch.zeros(rank, 100)}, tmp_path / f"{rank}.safetensors")
    info, parts = read_model_info(folder), parts_of(folder)
    found = plan_memory(info, parts, 2, EngineSettings(), 8, sorted(tmp_path.iterdir()))
    network = FluxTransformer2DModel.from_pretrained(folder / "transformer")
    layers = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    assert found.parts["lora"] == 2 * 4 * sum(sum(layer.weight.shape) for layer in layers)


# Live tensors of the full-size networks, which are never allocated


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside have held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self._now = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self._now += size
            self.bytes = max(self.bytes, self._now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now -= size


def peak_of(compute: Callable[[], object]) -> int:
    with Peak() as peak:
        compute()
    return peak.bytes


@pytest.mark.parametrize("rows", [1, 4])
def test_the_rule_for_a_step_covers_a_full_size_step_and_little_more(rows: int):
    config = {"in_channels": 64, "num_attention_heads": 24, "attention_head_dim": 128}
    config |= {"num_layers": 19, "num_single_layers": 38}
    upscaler = config | {"num_layers": 5, "num_single_layers": 0}
    ruled = rows * memory._row(config, TOKENS, TEXT, BF16.itemsize, [upscaler])
    torch.set_default_dtype(BF16)
    try:
        with FakeTensorMode(), torch.inference_mode():
            # one block's peak does not depend on how many there are
            transformer = FluxTransformer2DModel(
                num_layers=2, num_single_layers=2, guidance_embeds=True
            )
            controlnet = FluxControlNetModel(num_layers=5, num_single_layers=0)
            shared = {
                "hidden_states": torch.empty(rows, TOKENS, 64),
                "encoder_hidden_states": torch.empty(rows, TEXT, 4096),
                "pooled_projections": torch.empty(rows, 768),
                "timestep": torch.empty(rows),
                "img_ids": torch.empty(TOKENS, 3),
                "txt_ids": torch.empty(TEXT, 3),
                "return_dict": False,
            }

            def step() -> None:
                picture = torch.empty(rows, TOKENS, 64)
                double, _ = controlnet(controlnet_cond=picture, **shared)
                guidance = torch.empty(rows)
                transformer(controlnet_block_samples=double, guidance=guidance, **shared)

            counted = peak_of(step)
    finally:
        torch.set_default_dtype(torch.float32)
    assert 0.7 * ruled < counted <= ruled


def test_the_rule_for_the_autoencoder_covers_a_full_size_decoding():
    widths = (128, 256, 512, 512)
    ruled = memory._vae_row({"block_out_channels": widths}, TILE_PX, BF16.itemsize)
    torch.set_default_dtype(BF16)
    try:
        with FakeTensorMode(), torch.inference_mode():
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=widths,
                layers_per_block=2,
                latent_channels=16,
                use_quant_conv=False,
                use_post_quant_conv=False,
            )
            decoding = peak_of(lambda: vae.decode(torch.empty(1, 16, 128, 128)))
            encoding = peak_of(lambda: vae.encode(torch.empty(1, 3, TILE_PX, TILE_PX)))
    finally:
        torch.set_default_dtype(torch.float32)
    assert 0.7 * ruled < max(decoding, encoding) <= ruled


# What is told


def test_a_plan_that_fits_says_nothing(folder: Path):
    made = plan(folder)
    made.check(made.need)


def test_a_plan_that_does_not_fit_tells_need_have_parts_and_remedies(folder: Path):
    made = plan(folder, max_batch=8)
    with pytest.raises(ConfigurationError) as caught:
        made.check(made.need - 1)
    assert caught.value.field == "engine"
    told = caught.value.detail
    assert f"needs {made.need / GIB:.1f} GiB" in told
    for name in ("transformer", "controlnet", "vae", "8 tiles of 32 px", "context"):
        assert name in told
    for remedy in ("max_batch", "quantization", "offload", "larger card"):
        assert remedy in told


def test_what_is_already_done_is_no_remedy(folder: Path):
    told = "; ".join(plan(folder, max_batch=1, offload=True, quantization="fp8").remedies)
    assert told == "a larger card"


def test_more_tiles_take_more_and_the_cache_too(folder: Path):
    one, eight = plan(folder, max_batch=1).need, plan(folder, max_batch=8).need
    assert one < eight < plan(folder, max_batch=8, residual_cache=True).need
    assert eight < plan(folder, max_batch=8, cuda_graphs=True).need


@pytest.mark.parametrize(("takes_true_cfg", "passes"), [(False, 1), (True, 2)])
def test_the_cache_is_planned_for_both_lanes_and_both_passes(
    folder: Path, takes_true_cfg: bool, passes: int
):
    info = read_model_info(folder).model_copy(update={"takes_true_cfg": takes_true_cfg})
    settings = EngineSettings(max_batch=3, residual_cache=True)
    found = plan_memory(info, parts_of(folder), 2, settings, 8).parts["residual cache"]
    config = memory.read_config(folder / "transformer")
    tokens, width = (info.tile_px // info.align_px) ** 2, memory._width(config)
    history = History()
    for sigma in (0.9, 0.5, 0.1):
        history.add(sigma, torch.zeros(tokens, width, dtype=BF16), None)
    each = sum(residual.nbytes for _, residual in history._points)
    assert found == len(Priority) * 3 * passes * each


def test_controls_that_share_a_controlnet_are_added_up_too(folder: Path):
    info = read_model_info(folder)
    two = info.controls | {"canny": ControlInfo(picture="canny")}
    more = info.model_copy(update={"controls": two})
    one, both = (
        plan_memory(which, parts_of(folder), 2, EngineSettings(vae_batch=1, max_batch=8), 8)
        for which in (info, more)
    )
    assert both.need > one.need


def test_the_embedded_model_is_planned_too():
    folder = find_model("mini")
    assert 0 < plan(folder).need < 4 * GIB


@pytest.mark.parametrize("broken", ["diffusion_pytorch_model.safetensors", "config.json"])
def test_broken_files_are_named(tmp_path: Path, broken: str):
    build_tiny_flux(tmp_path, takes_prompt=False, with_text_encoders=False)
    (tmp_path / "transformer" / broken).write_bytes(b"\xff" * 20)
    with pytest.raises(ConfigurationError) as caught:
        plan(tmp_path)
    assert caught.value.field == "transformer"
    assert re.search(broken, caught.value.detail)


def test_missing_weights_are_named(tmp_path: Path):
    build_tiny_flux(tmp_path, takes_prompt=False, with_text_encoders=False)
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="no weights"):
        plan(tmp_path)
