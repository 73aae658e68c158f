"""Prompt embeddings: of any text where the text encoders are, and the empty prompt's, stored for all others.

The two encoders are FLUX's: CLIP gives one pooled vector, T5 a sequence of fixed length. They run apart from
the accelerator's replicas, which need only the empty prompt: it is computed once and stored.

Source: diffusers 0.42, `FluxControlNetPipeline.encode_prompt`.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from serve_app.contracts import ModelInfo
from serve_app.errors import ConfigurationError
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.copies import origin_of
from serve_app.models.source import cache_folder, find_part
from serve_app.settings import ModelSettings, PromptSettings

logger = logging.getLogger("tessera.prompts")

EMBEDS_FILE = "prompt_embeds.safetensors"
_PARTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Prompt:
    """One prompt's embeddings; compared by identity.

    Attributes:
        sequence: (1, tokens, joint_attention_dim).
        pooled: (1, pooled_projection_dim).
    """

    sequence: torch.Tensor
    pooled: torch.Tensor

    @classmethod
    def from_arrays(
        cls, arrays: Sequence[npt.NDArray[np.float32]], device: torch.device, dtype: torch.dtype
    ) -> Self:
        """Puts embeddings that have travelled, (tokens, dim) and (dim,), on a device."""
        sequence, pooled = (torch.tensor(array).to(device, dtype)[None] for array in arrays)
        return cls(sequence, pooled)

    def to_arrays(self) -> Arrays:
        """For travel; float32 holds bfloat16 and float16 without loss."""
        return self.sequence[0].float().cpu().numpy(), self.pooled[0].float().cpu().numpy()


class PromptEncoder:
    """CLIP and T5 with their tokenizers, and a cache of the last prompts. To be used by one thread at a time.

    Args:
        clip: `CLIPTextModel`.
        clip_tokenizer: Its tokenizer.
        t5: `T5EncoderModel`.
        t5_tokenizer: Its tokenizer.
        tokens: Length of T5's sequence.
        cached: Prompts remembered.
    """

    def __init__(
        self, clip: Any, clip_tokenizer: Any, t5: Any, t5_tokenizer: Any, tokens: int, cached: int
    ) -> None:
        self._clip = clip
        self._clip_tokenizer = clip_tokenizer
        self._t5 = t5
        self._t5_tokenizer = t5_tokenizer
        self._tokens = tokens
        self.encode = lru_cache(cached)(self._encode)

    @classmethod
    def load(
        cls,
        folder: Path,
        info: ModelInfo,
        tokens: int,
        device: torch.device,
        dtype: torch.dtype,
        cache_dir: str | None = None,
        cached: int = 1,
    ) -> Self:
        """Loads a model's encoders from its folder, or from where its `components` say.

        Args:
            folder: The model's.
            info: Its `tessera.json`.
            tokens: Length of T5's sequence, at most 512.
            device: Where they run.
            dtype: What their weights are cast to.
            cache_dir: `model.cache_dir`.
            cached: Prompts remembered.

        Raises:
            ConfigurationError: naming the part that is missing or broken.
        """
        from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

        def part(kind: Any, name: str, **options: Any) -> Any:
            source = find_part(info, folder, name, cache_dir)
            with _blamed_on(name, source):
                return kind.from_pretrained(source, **options)

        def encoder(kind: Any, name: str) -> Any:
            module, found = part(kind, name, dtype=dtype, output_loading_info=True)
            if found["missing_keys"]:  # transformers would fill them with random numbers
                missing = min(found["missing_keys"])
                raise ConfigurationError(f"{name}: its files lack {missing}", field=name)
            return module.to(device).eval().requires_grad_(False)

        return cls(
            encoder(CLIPTextModel, "text_encoder"),
            part(AutoTokenizer, "tokenizer"),
            encoder(T5EncoderModel, "text_encoder_2"),
            part(AutoTokenizer, "tokenizer_2"),
            tokens,
            cached,
        )

    @torch.inference_mode()
    def _encode(self, text: str) -> Arrays:
        clip_ids = self._ids(
            self._clip_tokenizer, text, self._clip_tokenizer.model_max_length, self._clip
        )
        t5_ids = self._ids(self._t5_tokenizer, text, self._tokens, self._t5)
        arrays = Prompt(
            sequence=self._t5(t5_ids, output_hidden_states=False)[0],
            pooled=self._clip(clip_ids, output_hidden_states=False).pooler_output,
        ).to_arrays()
        for array in arrays:
            array.setflags(write=False)  # it stays in the cache
        return arrays

    @staticmethod
    def _ids(tokenizer: Any, text: str, tokens: int, encoder: Any) -> torch.Tensor:
        encoded = tokenizer(
            [text], padding="max_length", max_length=tokens, truncation=True, return_tensors="pt"
        )
        ids: torch.Tensor = encoded.input_ids.to(encoder.device)
        return ids


def open_encoder(model: ModelSettings, chosen: PromptSettings) -> PromptEncoder:
    """Loads the encoders that the settings name.

    Raises:
        ConfigurationError: if there is no such model or device, or the model has no encoders.
    """
    try:
        device = torch.device(chosen.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        detail = f"prompts.device: {chosen.device}: {error}"
        raise ConfigurationError(detail, field="prompts.device") from None
    folder = find_model(model.source, model.cache_dir)
    dtype = getattr(torch, chosen.dtype)
    place = (folder, read_model_info(folder), chosen.tokens, device, dtype, model.cache_dir)
    return PromptEncoder.load(*place, chosen.cached)


def null_prompt(
    folder: Path,
    info: ModelInfo,
    tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    cache_dir: str | None = None,
) -> Prompt:
    """The empty prompt of a model, which needs no text encoder once it is stored.

    Of a model that takes prompts it is as long as they are, so that they share batches. What is not stored is
    computed with the model's encoders, which are then freed, and is stored beside the model or, where that
    cannot be written, in the cache. Of several processes on a node one computes.

    Args:
        folder: The model's.
        info: Its `tessera.json`.
        tokens: Length of T5's sequence.
        device: Where the prompt goes and, if need be, the encoders run: call it before the networks are loaded.
        dtype: Its type.
        cache_dir: `model.cache_dir`.

    Raises:
        ConfigurationError: neither the embeddings nor encoders are there, or they are broken.
    """
    missing = _missing_parts(folder, info)
    if info.takes_prompt and missing:
        raise ConfigurationError(
            f"{folder}: takes_prompt is true, but there is no {' and no '.join(missing)}",
            field="takes_prompt",
        )
    named = EMBEDS_FILE.replace(".", f"-{tokens}.")
    cache = cache_folder(cache_dir) / "prompts" / _key(folder, info)
    places = [folder / EMBEDS_FILE, folder / named, cache / named]

    def stored() -> Prompt | None:
        prompts = (_read(path, device, dtype) for path in places if path.is_file())
        fits = (p for p in prompts if not info.takes_prompt or p.sequence.shape[1] == tokens)
        return next(fits, None)

    found = stored()
    if found is not None:
        return found
    if missing:
        raise ConfigurationError(
            f"{folder}: neither {EMBEDS_FILE} nor {', '.join(missing)}", field="prompt_embeds"
        )
    with _blamed_on("model.cache_dir", cache):
        cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):
        return stored() or _compute(folder, info, tokens, device, dtype, cache_dir, places[1:])


def _missing_parts(folder: Path, info: ModelInfo) -> list[str]:
    """The encoders and tokenizers that a model lacks; a model from elsewhere is asked when they are fetched."""
    if origin_of(folder):
        return []
    return [name for name in _PARTS if name not in info.components and not (folder / name).is_dir()]


def _compute(
    folder: Path,
    info: ModelInfo,
    tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    cache_dir: str | None,
    places: Sequence[Path],
) -> Prompt:
    logger.info("prompts.null_prompt", extra={"model": info.name, "tokens": tokens})
    encoder = PromptEncoder.load(folder, info, tokens, device, dtype, cache_dir)
    prompt = Prompt.from_arrays(encoder.encode(""), device, dtype)
    del encoder
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if not any(_store(prompt, path) for path in places):
        logger.warning("prompts.not_stored", extra={"places": [str(path) for path in places]})
    return prompt


def _read(path: Path, device: torch.device, dtype: torch.dtype) -> Prompt:
    with _blamed_on("prompt_embeds", path):
        tensors = load_file(path)
        return Prompt(
            tensors["prompt_embeds"].to(device, dtype),
            tensors["pooled_prompt_embeds"].to(device, dtype),
        )


def _store(prompt: Prompt, path: Path) -> bool:
    """Writes a prompt whole or not at all; False where it cannot be written."""
    tensors = {"prompt_embeds": prompt.sequence, "pooled_prompt_embeds": prompt.pooled}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".prompt-") as scratch:
            written = Path(scratch) / path.name
            save_file({name: tensor.cpu() for name, tensor in tensors.items()}, written)
            written.replace(path)
    except (OSError, SafetensorError):
        return False
    return True


def _key(folder: Path, info: ModelInfo) -> str:
    """A folder of the cache for one model: its place and its description make it."""
    stated = f"{folder.resolve()}\n{info.model_dump_json()}"
    return f"{info.name}-{hashlib.sha256(stated.encode()).hexdigest()[:16]}"


@contextmanager
def _blamed_on(name: str, source: Path | str) -> Iterator[None]:
    """Turns what the loading libraries raise into an error that names the part."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ConfigurationError(f"{name}: {source} cannot be used: {error}", field=name) from error
