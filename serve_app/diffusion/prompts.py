"""Prompt embeddings: the empty prompt's, stored beside a model, and any prompt's where text encoders are there.

The two encoders are FLUX's: CLIP gives one pooled vector, T5 a sequence.
Source: diffusers 0.42, `FluxControlNetPipeline.encode_prompt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file

EMBEDS_FILE = "prompt_embeds.safetensors"
_T5_TOKENS = 512
_CLIP_TOKENS = 77
_CACHED_PROMPTS = 64


@dataclass(frozen=True)
class Prompt:
    """One prompt's embeddings.

    Attributes:
        sequence: (1, tokens, joint_attention_dim).
        pooled: (1, pooled_projection_dim).
    """

    sequence: torch.Tensor
    pooled: torch.Tensor


def read_null_prompt(folder: Path, device: torch.device, dtype: torch.dtype) -> Prompt | None:
    """Reads the empty prompt's embeddings stored with a model; None if it stores none."""
    path = folder / EMBEDS_FILE
    if not path.is_file():
        return None
    tensors = load_file(path)
    return Prompt(
        tensors["prompt_embeds"].to(device, dtype),
        tensors["pooled_prompt_embeds"].to(device, dtype),
    )


class PromptEncoder:
    """CLIP and T5 with their tokenizers, and a cache of the last prompts.

    Args:
        clip: `CLIPTextModel`.
        clip_tokenizer: Its tokenizer.
        t5: `T5EncoderModel`.
        t5_tokenizer: Its tokenizer.
        device: Where the ids are sent.
    """

    def __init__(
        self, clip: Any, clip_tokenizer: Any, t5: Any, t5_tokenizer: Any, device: torch.device
    ) -> None:
        self._clip = clip
        self._clip_tokenizer = clip_tokenizer
        self._t5 = t5
        self._t5_tokenizer = t5_tokenizer
        self._device = device
        self.encode = lru_cache(_CACHED_PROMPTS)(self._encode)

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Self | None:
        """Loads the encoders of a model folder; None where it has none."""
        if not (folder / "text_encoder").is_dir() or not (folder / "text_encoder_2").is_dir():
            return None
        from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

        def encoder(kind: Any, name: str) -> Any:
            module = kind.from_pretrained(folder, subfolder=name, dtype=dtype)
            return module.to(device).eval().requires_grad_(False)

        return cls(
            encoder(CLIPTextModel, "text_encoder"),
            AutoTokenizer.from_pretrained(folder, subfolder="tokenizer"),
            encoder(T5EncoderModel, "text_encoder_2"),
            AutoTokenizer.from_pretrained(folder, subfolder="tokenizer_2"),
            device,
        )

    @torch.inference_mode()
    def _encode(self, text: str) -> Prompt:
        clip_ids = self._ids(self._clip_tokenizer, text, _CLIP_TOKENS)
        t5_ids = self._ids(self._t5_tokenizer, text, _T5_TOKENS)
        return Prompt(
            sequence=self._t5(t5_ids, output_hidden_states=False)[0],
            pooled=self._clip(clip_ids, output_hidden_states=False).pooler_output,
        )

    def _ids(self, tokenizer: Any, text: str, tokens: int) -> torch.Tensor:
        encoded = tokenizer(
            [text], padding="max_length", max_length=tokens, truncation=True, return_tensors="pt"
        )
        ids: torch.Tensor = encoded.input_ids.to(self._device)
        return ids
