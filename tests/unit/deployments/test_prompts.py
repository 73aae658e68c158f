"""Texts are embedded beside the event loop, equal ones once; that embeddings come is told before they come."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.deployments.prompts import PromptEncoder
from serve_app.engine.task import PromptArrays
from serve_app.errors import ConfigurationError
from serve_app.local import LocalPromptEmbedder
from serve_app.settings import Settings


def settings(folder: Path, **prompts: Any) -> Settings:
    return Settings.parse({"model": str(folder), "prompts": {"tokens": 128} | prompts})


async def test_a_text_becomes_its_embeddings_and_a_closing_mark(tiny_flux_folder: Path):
    encoder = PromptEncoder(settings(tiny_flux_folder))
    arrays, mark = [item async for item in encoder.embed("a house")]
    assert mark is None
    assert isinstance(arrays, PromptArrays)
    assert (arrays.sequence.shape, arrays.pooled.shape) == ((128, 32), (32,))
    assert arrays.sequence.dtype == arrays.pooled.dtype == np.float32


async def test_a_replica_has_loaded_its_encoders(tiny_flux_folder: Path, tmp_path: Path):
    """Else Ray would count one that cannot work as running."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_flux_folder, folder)
    config = folder / "text_encoder_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"d_ff": 64}))
    with pytest.raises(ConfigurationError, match="text_encoder_2"):
        PromptEncoder(settings(folder))


def test_a_device_that_is_not_there_is_refused(tiny_flux_folder: Path):
    with pytest.raises(ConfigurationError) as caught:
        PromptEncoder(settings(tiny_flux_folder, device="cuda:99"))
    assert caught.value.field == "prompts.device"


async def test_equal_texts_at_once_are_encoded_once(tiny_flux_folder: Path):
    embedder = LocalPromptEmbedder(settings(tiny_flux_folder))
    texts = ["a house", "a mouse"] * 5
    found = await asyncio.gather(*map(embedder.embed, texts))
    assert embedder._encoder.encode.cache_info().misses == 2
    assert all(np.array_equal(one.pooled, found[n % 2].pooled) for n, one in enumerate(found))
    assert not np.array_equal(found[0].pooled, found[1].pooled)


async def test_the_event_loop_turns_while_a_text_is_encoded(tiny_flux_folder: Path):
    embedder = LocalPromptEmbedder(settings(tiny_flux_folder))
    embedder.open()
    encode, turned, seen = embedder._encoder.encode, threading.Event(), []

    def blocking(text: str) -> Any:
        seen.append(turned.wait(30))
        return encode(text)

    embedder._encoder.encode = blocking  # type: ignore[assignment]
    running = asyncio.create_task(embedder.embed("a house"))
    await asyncio.sleep(0)
    turned.set()
    await running
    assert seen == [True]
