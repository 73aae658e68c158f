"""Adapters act as diffusers' own loading makes them act, and leave no trace when they are off."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxControlNetPipeline, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounter

from serve_app.diffusion.adapters import NO_ADAPTER, AdaptedLinear, Adapters
from serve_app.diffusion.graphs import Replayed
from serve_app.errors import TileFailed
from tests.tiny_lora import save_tiny_lora

TOLERANCE = 1e-5


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def load_transformer(folder: Path) -> FluxTransformer2DModel:
    return FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer").eval()


@torch.inference_mode()
def run(transformer: FluxTransformer2DModel) -> torch.Tensor:
    found: torch.Tensor = transformer(
        hidden_states=random(1, 2, 16, 64),
        encoder_hidden_states=random(2, 2, 6, 32),
        pooled_projections=random(3, 2, 32),
        timestep=torch.tensor([0.8, 0.3]),
        guidance=torch.tensor([3.5, 1.0]),
        img_ids=torch.zeros(16, 3),
        txt_ids=torch.zeros(6, 3),
        return_dict=False,
    )[0]
    return found


@pytest.fixture(scope="module")
def folder(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters of different ranks and layers."""
    found = tmp_path_factory.mktemp("loras")
    save_tiny_lora(tiny_flux_folder, found / "turbo", seed=1)
    save_tiny_lora(tiny_flux_folder, found / "hyper", seed=2, r=2, target_modules=["to_v"])
    return found


@pytest.fixture(scope="module")
def plain(tiny_flux_folder: Path) -> torch.Tensor:
    """What the model computes without adapters."""
    return run(load_transformer(tiny_flux_folder))


@pytest.fixture
def transformer(tiny_flux_folder: Path) -> FluxTransformer2DModel:
    return load_transformer(tiny_flux_folder)


@pytest.fixture
def adapters(transformer: FluxTransformer2DModel, folder: Path) -> Adapters:
    return Adapters(transformer, str(folder))


def by_pipeline(model: Path, file: Path, scale: float) -> torch.Tensor:
    """What the model computes when the pipeline has loaded the adapter."""
    pipeline = FluxControlNetPipeline(
        scheduler=None, vae=None, text_encoder=None, tokenizer=None, text_encoder_2=None,
        tokenizer_2=None, transformer=load_transformer(model), controlnet=None,
    )  # fmt: skip
    pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name="a")
    pipeline.set_adapters("a", scale)
    return run(pipeline.transformer)


def greatest(difference: torch.Tensor) -> float:
    return difference.abs().max().item()


# Parity


@pytest.mark.parametrize("name", ["turbo", "hyper"])
@pytest.mark.parametrize("scale", [1.0, 0.125, 2.0])
def test_an_adapter_acts_as_in_the_pipeline(
    adapters: Adapters,
    transformer: FluxTransformer2DModel,
    tiny_flux_folder: Path,
    folder: Path,
    plain: torch.Tensor,
    name: str,
    scale: float,
):
    adapters.use(name, scale)
    expected = by_pipeline(
        tiny_flux_folder, folder / name / "pytorch_lora_weights.safetensors", scale
    )
    assert greatest(run(transformer) - expected) < TOLERANCE
    assert greatest(expected - plain) > 1e-2


def kohya(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`transformer.single_transformer_blocks.0.proj_out` as kohya's trainer names it, with an alpha."""
    stem = "lora_unet_single_blocks_0_linear2"
    return {
        f"{stem}.lora_down.weight": tensors["down"],
        f"{stem}.lora_up.weight": tensors["up"],
        f"{stem}.alpha": torch.tensor(1.0),
    }


def old_diffusers(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    stem = "transformer.single_transformer_blocks.0.proj_out.lora"
    return {f"{stem}.down.weight": tensors["down"], f"{stem}.up.weight": tensors["up"]}


def with_alphas(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    stem = "transformer.single_transformer_blocks.0.proj_out"
    return {
        f"{stem}.lora_A.weight": tensors["down"],
        f"{stem}.lora_B.weight": tensors["up"],
        f"{stem}.alpha": torch.tensor(0.5),
    }


@pytest.mark.parametrize("written", [kohya, old_diffusers, with_alphas])
def test_other_formats_are_read_as_the_pipeline_reads_them(
    transformer: FluxTransformer2DModel,
    tiny_flux_folder: Path,
    tmp_path: Path,
    plain: torch.Tensor,
    written: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
):
    layer = transformer.single_transformer_blocks[0].proj_out
    file = tmp_path / "foreign.safetensors"
    low_rank = {"down": random(7, 4, layer.in_features), "up": random(8, layer.out_features, 4)}
    save_file(written(low_rank), file)
    Adapters(transformer, str(tmp_path)).use("foreign", 0.7)
    expected = by_pipeline(tiny_flux_folder, file, 0.7)
    assert greatest(run(transformer) - expected) < TOLERANCE
    assert greatest(expected - plain) > 1e-2


def test_what_the_metadata_says_of_alpha_is_taken(
    transformer: FluxTransformer2DModel, tiny_flux_folder: Path, tmp_path: Path
):
    save_tiny_lora(
        tiny_flux_folder,
        tmp_path / "stated",
        seed=3,
        with_metadata=True,
        lora_alpha=2,
        alpha_pattern={"to_k": 8},
        use_rslora=True,
    )
    Adapters(transformer, str(tmp_path)).use("stated", 1.0)
    file = tmp_path / "stated" / "pytorch_lora_weights.safetensors"
    expected = by_pipeline(tiny_flux_folder, file, 1.0)
    assert greatest(run(transformer) - expected) < TOLERANCE
    layer = transformer.transformer_blocks[0].attn
    tensors = load_file(file)
    prefix = "transformer.transformer_blocks.0.attn"
    for name, scaling in {"to_q": 2 / math.sqrt(4), "to_k": 8 / math.sqrt(4)}.items():
        expected = tensors[f"{prefix}.{name}.lora_B.weight"] * scaling
        assert torch.allclose(getattr(layer, name).up, expected)


# Hot swap


def test_without_an_adapter_the_model_is_the_plain_one_to_the_bit(
    adapters: Adapters, transformer: FluxTransformer2DModel, plain: torch.Tensor
):
    assert torch.equal(run(transformer), plain)
    first = None
    for name in ("turbo", "", "hyper", "turbo", ""):
        adapters.use(name, 0.9)
        found = run(transformer)
        if name == "turbo":
            first = found if first is None else first
            assert torch.equal(found, first)
        assert torch.equal(found, plain) == (name == "")


def test_the_version_names_the_weights(adapters: Adapters):
    assert adapters.version == NO_ADAPTER
    adapters.use("turbo", 0.5)
    assert adapters.version == ("turbo", 0.5)
    adapters.use("", 0.5)
    assert adapters.version == NO_ADAPTER


def test_a_swap_moves_no_weight(adapters: Adapters, transformer: FluxTransformer2DModel):
    """Compiled blocks and captured graphs go by addresses."""
    before = {name: weight.data_ptr() for name, weight in transformer.named_parameters()}
    adapters.use("turbo", 1.0)
    adapters.use("hyper", 1.0)
    after = {name: weight.data_ptr() for name, weight in transformer.named_parameters()}
    assert after == before


def test_files_are_read_when_first_used_and_a_few_are_kept(
    tiny_flux_folder: Path, tmp_path: Path, transformer: FluxTransformer2DModel
):
    names = [f"a{number}" for number in range(6)]
    for seed, name in enumerate(names):
        save_tiny_lora(tiny_flux_folder, tmp_path / name, seed, r=2, target_modules=["to_q"])
    adapters = Adapters(transformer, str(tmp_path))
    assert adapters.names == tuple(names)
    assert adapters._load.cache_info().misses == 0
    for name in [*names, *names[-3:]]:
        adapters.use(name, 1.0)
    found = adapters._load.cache_info()
    assert (found.misses, found.hits) == (6, 3)
    assert found.currsize == found.maxsize < 6


def test_going_back_to_the_last_adapter_copies_nothing(
    adapters: Adapters, transformer: FluxTransformer2DModel, monkeypatch: pytest.MonkeyPatch
):
    adapters.use("turbo", 1.0)
    adapted = run(transformer)
    adapters.use("", 1.0)
    monkeypatch.setattr(AdaptedLinear, "hold", None)
    adapters.use("turbo", 1.0)
    assert torch.equal(run(transformer), adapted)


def test_rehearsing_runs_both_ways_and_changes_nothing(
    adapters: Adapters, transformer: FluxTransformer2DModel, plain: torch.Tensor
):
    layer = transformer.transformer_blocks[0].attn.to_q
    seen = [
        (layer.on, adapters.on, greatest(run(transformer) - plain)) for _ in adapters.rehearse()
    ]
    assert seen == [(False, False, 0), (True, True, 0)]
    assert not layer.on
    assert not adapters.on


def test_what_is_recorded_while_rehearsing_is_replayed_in_service(
    adapters: Adapters, transformer: FluxTransformer2DModel
):
    recorded: list[bool] = []

    def record(compute: Callable[[], object]) -> Callable[[], object]:
        recorded.append(adapters.on)
        return compute

    replayed = Replayed(lambda: run(transformer), lambda: adapters.on, record)
    for _ in adapters.rehearse():
        replayed()
    assert recorded == [False, True]
    for name in ("turbo", "", "hyper"):
        adapters.use(name, 1.0)
        assert torch.equal(replayed(), run(transformer))
    assert recorded == [False, True]


def test_swaps_compile_nothing_anew(adapters: Adapters, transformer: FluxTransformer2DModel):
    counter = CompileCounter()
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        block.compile(backend=counter, fullgraph=True)
    for _ in adapters.rehearse():
        run(transformer)
    warm = counter.frame_count
    assert warm > 0
    for name, scale in [("turbo", 1.0), ("hyper", 0.5), ("", 1.0), ("turbo", 0.3)]:
        adapters.use(name, scale)
        run(transformer)
    assert counter.frame_count == warm


def test_a_part_for_the_text_encoders_is_left_out(
    transformer: FluxTransformer2DModel, tiny_flux_folder: Path, tmp_path: Path
):
    save_tiny_lora(tiny_flux_folder, tmp_path / "alone", seed=1)
    tensors = load_file(tmp_path / "alone" / "pytorch_lora_weights.safetensors")
    stem = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    extra = {f"{stem}.lora_A.weight": random(1, 4, 32), f"{stem}.lora_B.weight": random(2, 32, 4)}
    save_file(tensors | extra, tmp_path / "both.safetensors")
    adapters = Adapters(transformer, str(tmp_path))
    adapters.use("alone", 1.0)
    expected = run(transformer)
    adapters.use("both", 1.0)
    assert torch.equal(run(transformer), expected)


def test_without_a_folder_nothing_is_changed(transformer: FluxTransformer2DModel):
    adapters = Adapters(transformer, None)
    assert adapters.names == ()
    adapters.use("", 1.0)
    assert len(list(adapters.rehearse())) == 1
    assert not any(isinstance(module, AdaptedLinear) for module in transformer.modules())


# What does not fit


def wrong_layer(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("blocks.1", "blocks.7"): tensor for name, tensor in tensors.items()}


def wrong_width(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor[:, :-1].contiguous() for name, tensor in tensors.items()}


def half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(list(tensors.items())[:-1])


def full_rank(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: tensor.repeat_interleave(100, dim=0 if "lora_A" in name else 1)
        for name, tensor in tensors.items()
    }


def other_part(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("transformer.", "unet.", 1): tensor for name, tensor in tensors.items()}


def a_bias(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(name for name in tensors if "lora_B" in name)
    return tensors | {name.replace(".weight", ".bias"): torch.zeros(4)}


def dora(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(name for name in tensors if "lora_B" in name)
    return tensors | {name.replace("lora_B.weight", "dora_scale"): torch.zeros(4)}


FAULTS = [wrong_layer, wrong_width, half, full_rank, other_part, a_bias, dora]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_adapter_that_does_not_fit_costs_its_request_alone(
    tiny_flux_folder: Path,
    tmp_path: Path,
    transformer: FluxTransformer2DModel,
    plain: torch.Tensor,
    fault: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
):
    save_tiny_lora(tiny_flux_folder, tmp_path / "good", seed=1)
    tensors = load_file(tmp_path / "good" / "pytorch_lora_weights.safetensors")
    save_file(fault(tensors), tmp_path / "bad.safetensors")
    adapters = Adapters(transformer, str(tmp_path))
    adapters.use("good", 1.0)
    adapted = run(transformer)
    with pytest.raises(TileFailed, match="'bad'") as caught:
        adapters.use("bad", 1.0)
    assert caught.value.field == "lora"
    assert adapters.version == ("good", 1.0)
    assert torch.equal(run(transformer), adapted)
    adapters.use("", 1.0)
    assert torch.equal(run(transformer), plain)


@pytest.mark.parametrize("content", [b"", b"no tensors at all", b"\x80\x04pickle"])
def test_a_broken_file_costs_its_request_alone(
    folder: Path,
    tmp_path: Path,
    transformer: FluxTransformer2DModel,
    plain: torch.Tensor,
    content: bytes,
):
    (tmp_path / "broken.safetensors").write_bytes(content)
    adapters = Adapters(transformer, str(tmp_path))
    for _ in range(3):
        with pytest.raises(TileFailed):
            adapters.use("broken", 1.0)
    assert adapters._load.cache_info().misses == 1  # the engine's thread reads it once
    assert torch.equal(run(transformer), plain)


def test_a_name_that_is_not_offered_fails(adapters: Adapters):
    with pytest.raises(TileFailed, match="'nobody'"):
        adapters.use("nobody", 1.0)
