"""What a result's file says of its making is enough to make the same bytes again, with the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.contracts import UpscaleParams, UpscaleRequest
from serve_app.imaging.provenance import read_provenance
from serve_app.local import local_upscaler
from serve_app.settings import Settings
from serve_app.testing import photo_like, png_bytes

ASKED = {"scale": 2, "steps": 2, "fidelity": 0.7, "guidance_scale": 3, "max_pixels": 100_000}


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp", "avif", "tiff", "jxl"])
async def test_a_result_made_again_from_its_own_words(output_format: str, tmp_path: Path) -> None:
    image = png_bytes(photo_like(40, 56))
    asked = UpscaleParams.parse(ASKED | {"output_format": output_format})
    async with local_upscaler(Settings()) as upscaler:
        [model] = await upscaler.models()
        first = await upscaler.upscale(UpscaleRequest(image=image, params=asked, request_id="a"))
        told = read_provenance(first.image)
        assert told is not None
        assert told["model"] == model.name
        assert told["revision"] == model.revision is not None
        assert told["seed"] == told["parameters"]["seed"] == first.params.seed
        known = {name: told["parameters"][name] for name in UpscaleParams.model_fields}
        again = UpscaleParams.model_validate(
            {n: v for n, v in known.items() if v not in (None, [])}
        )
        second = await upscaler.upscale(UpscaleRequest(image=image, params=again, request_id="b"))
    assert second.image == first.image
