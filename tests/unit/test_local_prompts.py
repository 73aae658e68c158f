"""Prompts and adapters in one process: what a request asks for acts on its own tiles and on no other's."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.contracts import UpscaleParams, UpscaleRequest
from serve_app.errors import InvalidParameter, TileFailed
from serve_app.local import local_upscaler
from serve_app.settings import Settings
from serve_app.testing import photo_like, png_bytes
from serve_app.upscale import Conductor
from tests.tiny_lora import save_tiny_lora

PHOTO = png_bytes(photo_like(12, 20))
ASKED: list[dict[str, Any]] = [
    {},
    {"prompt": "a house"},
    {"prompt": "a house", "negative_prompt": "fog", "true_cfg_scale": 3},
    {"lora": "turbo"},
    {"lora": "turbo", "lora_scale": 0.3},
    {"lora": "hyper"},
    {"lora": "hyper", "prompt": "a house", "steps": 3},
]


@pytest.fixture(scope="module")
def loras(tiny_flux_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    save_tiny_lora(tiny_flux_folder, folder / "turbo", seed=1)
    save_tiny_lora(tiny_flux_folder, folder / "hyper", seed=2, r=2, target_modules=["to_v"])
    (folder / "broken.safetensors").write_bytes(b"no tensors")
    return folder


@pytest.fixture
async def upscaler(tiny_flux_folder: Path, loras: Path, tmp_path: Path) -> AsyncIterator[Conductor]:
    """Exact: each result is bit-equal whatever shares its batch."""
    folder = shutil.copytree(tiny_flux_folder, tmp_path / "model")
    settings = Settings.parse(
        {
            "model": {"source": str(folder), "loras": str(loras), "cache_dir": str(tmp_path)},
            "prompts": {"tokens": 128},
            "engine": {"device": "cpu", "threads": 1, "exact": True, "max_batch": 4},
        }
    )
    async with local_upscaler(settings) as found:
        assert isinstance(found, Conductor)
        yield found


def request(**params: Any) -> UpscaleRequest:
    chosen = UpscaleParams.parse({"seed": 3, "scale": 2} | params)
    return UpscaleRequest(image=PHOTO, params=chosen, request_id="r")


async def picture(upscaler: Conductor, asked: dict[str, Any]) -> bytes:
    return (await upscaler.upscale(request(**asked))).image


async def test_each_request_gets_its_own_prompt_and_adapter(upscaler: Conductor):
    alone = [await picture(upscaler, asked) for asked in ASKED]
    assert len(set(alone)) == len(ASKED)
    together = await asyncio.gather(*(picture(upscaler, asked) for asked in ASKED * 2))
    assert together == alone * 2


async def test_a_broken_adapter_costs_its_request_alone(upscaler: Conductor):
    alone = [await picture(upscaler, asked) for asked in ASKED]
    *others, broken = await asyncio.gather(
        *(picture(upscaler, asked) for asked in [*ASKED, {"lora": "broken"}]),
        return_exceptions=True,
    )
    assert isinstance(broken, TileFailed)
    assert "'broken'" in broken.detail
    assert others == alone


async def test_the_encoders_are_loaded_by_the_first_prompt(upscaler: Conductor):
    loaded = vars(upscaler._embedder)
    await picture(upscaler, {"lora": "turbo"})
    assert "_encoder" not in loaded
    await picture(upscaler, {"prompt": "a house"})
    assert "_encoder" in loaded


async def test_an_unknown_adapter_is_refused_before_anything_is_done(upscaler: Conductor):
    with pytest.raises(InvalidParameter) as caught:
        await upscaler.upscale(request(lora="nobody"))
    assert (caught.value.field, caught.value.allowed) == ("lora", "broken, hyper, turbo")
    assert (await upscaler.models())[0].loras == ("broken", "hyper", "turbo")
