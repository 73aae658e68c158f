import json
from typing import Any

import pytest

from serve_app.contracts import (
    ColorFix,
    ColorProfile,
    ControlInfo,
    Defaults,
    Limits,
    ModelInfo,
    OutputFormat,
    ResolvedControl,
    ResolvedParams,
    UpscaleParams,
    resolve,
)
from serve_app.errors import InvalidParameter

BASE: dict[str, Any] = {
    "name": "m",
    "description": "A model.",
    "license": "Apache-2.0",
    "tile_px": 256,
    "overlap_px": 32,
    "align_px": 16,
}
MODEL = ModelInfo(**BASE)
PROMPTED = ModelInfo(**BASE, takes_prompt=True, takes_true_cfg=True)
CONTROLLED = ModelInfo(
    **BASE,
    takes_prompt=True,
    takes_true_cfg=True,
    controls={
        "upscale": ControlInfo(picture="source"),
        "canny": ControlInfo(picture="canny", scale=0.5, end=0.8),
        "pose": ControlInfo(picture="given"),
    },
    loras=("turbo", "hyper"),
)


class TestResolve:
    def test_gaps_take_the_models_defaults(self) -> None:
        defaults = Defaults(scale=2, steps=8, strength=0.5, quality=70, control_end=0.5)
        found = resolve(UpscaleParams(), ModelInfo(**BASE, defaults=defaults), 123)
        assert found == ResolvedParams(
            model="m",
            scale=2,
            width=None,
            height=None,
            steps=8,
            strength=0.5,
            guidance_scale=3.5,
            control_scale=0.6,
            control_start=0,
            control_end=0.5,
            controls=(),
            lora="",
            lora_scale=1,
            prompt="",
            negative_prompt="",
            true_cfg_scale=1,
            seed=123,
            output_format=OutputFormat.PNG,
            quality=70,
            preset="",
            fidelity=None,
            color_fix=ColorFix.WAVELET,
            denoise=0,
            bit_depth=None,
            color_profile=ColorProfile.SOURCE,
            keep_metadata=True,
            keep_gps=False,
            max_pixels=None,
        )

    def test_what_was_given_stands(self) -> None:
        given: dict[str, Any] = {
            "scale": 3,
            "steps": 5,
            "strength": 0.25,
            "guidance_scale": 0.0,
            "control_scale": 0.0,
            "control_start": 0.0,
            "control_end": 0.5,
            "prompt": "cat",
            "negative_prompt": "blur",
            "true_cfg_scale": 2,
            "seed": 0,
            "output_format": OutputFormat.JPEG,
            "quality": 1,
        }
        found = resolve(UpscaleParams(**given), PROMPTED, 123).model_dump()
        assert {name: found[name] for name in given} == given

    @pytest.mark.parametrize("box", [{"width": 10}, {"height": 10}, {"width": 10, "height": 20}])
    def test_a_box_takes_the_scales_place(self, box: dict[str, int]) -> None:
        found = resolve(UpscaleParams(**box), MODEL, 0)
        assert found.scale is None
        assert (found.width, found.height) == (box.get("width"), box.get("height"))

    @pytest.mark.parametrize("name", Limits.model_fields)
    def test_a_models_narrower_limits(self, name: str) -> None:
        limited = ModelInfo(**BASE, limits=Limits(**{name: (1, 2)}), defaults=Defaults(**{name: 1}))
        for value in (1, 2):
            assert getattr(resolve(UpscaleParams(**{name: value}), limited, 0), name) == value
        outside = 3 if name != "control_scale" else 0.5
        with pytest.raises(InvalidParameter) as caught:
            resolve(UpscaleParams(**{name: outside}), limited, 0)
        assert (caught.value.field, caught.value.allowed) == (name, "1 to 2")

    @pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
    def test_prompts_where_none_are_read(self, name: str) -> None:
        with pytest.raises(InvalidParameter) as caught:
            resolve(UpscaleParams(**{name: "cat"}), MODEL, 0)
        assert (caught.value.field, caught.value.allowed) == (name, "absent or empty")
        assert getattr(resolve(UpscaleParams(**{name: ""}), MODEL, 0), name) == ""

    def test_true_cfg_where_it_is_not_taken(self) -> None:
        with pytest.raises(InvalidParameter) as caught:
            resolve(UpscaleParams(true_cfg_scale=1.5), MODEL, 0)
        assert (caught.value.field, caught.value.allowed) == ("true_cfg_scale", "1")
        assert resolve(UpscaleParams(true_cfg_scale=1), MODEL, 0).true_cfg_scale == 1

    def test_a_span_against_the_models_default(self) -> None:
        early = ModelInfo(**BASE, defaults=Defaults(control_end=0.5))
        with pytest.raises(InvalidParameter) as caught:
            resolve(UpscaleParams(control_start=0.5), early, 0)
        assert (caught.value.field, caught.value.allowed) == ("control_start", "below 0.5")

    def test_the_same_again(self) -> None:
        first = resolve(UpscaleParams(scale=3, steps=2), PROMPTED, 55)
        again = UpscaleParams.parse(json.loads(first.model_dump_json()))
        assert resolve(again, PROMPTED, 99) == first

    def test_a_box_the_same_again(self) -> None:
        first = resolve(UpscaleParams(width=64), PROMPTED, 55)
        again = UpscaleParams.parse(json.loads(first.model_dump_json()))
        assert resolve(again, PROMPTED, 99) == first


class TestControls:
    def test_gaps_take_the_models_own_and_upscale_comes_first(self) -> None:
        asked = UpscaleParams(controls=[{"name": "pose"}, {"name": "canny", "start": 0.25}])
        found = resolve(asked, CONTROLLED, 0)
        pose = ResolvedControl(name="pose", scale=0.6, start=0, end=1)
        canny = ResolvedControl(name="canny", scale=0.5, start=0.25, end=0.8)
        assert found.controls == (pose, canny)
        main = ResolvedControl(name="upscale", scale=0.6, start=0, end=1)
        assert found.all_controls == (main, pose, canny)
        again = UpscaleParams.parse(json.loads(found.model_dump_json()))
        assert resolve(again, CONTROLLED, 9) == found

    def test_upscale_takes_the_parameters_of_its_own(self) -> None:
        asked = UpscaleParams(control_scale=0.9, control_start=0.1, control_end=0.7)
        (main,) = resolve(asked, CONTROLLED, 0).all_controls
        assert main == ResolvedControl(name="upscale", scale=0.9, start=0.1, end=0.7)

    @pytest.mark.parametrize(
        ("names", "model", "allowed"),
        [
            (["depth"], CONTROLLED, "each once: canny, pose"),
            (["upscale"], CONTROLLED, "each once: canny, pose"),
            (["pose", "pose"], CONTROLLED, "each once: canny, pose"),
            (["canny"], MODEL, "absent or empty"),
        ],
    )
    def test_what_the_model_does_not_offer(
        self, names: list[str], model: ModelInfo, allowed: str
    ) -> None:
        asked = UpscaleParams(controls=[{"name": name} for name in names])
        with pytest.raises(InvalidParameter) as caught:
            resolve(asked, model, 0)
        assert (caught.value.field, caught.value.allowed) == ("controls", allowed)
        assert resolve(UpscaleParams(controls=[]), model, 0).controls == ()

    def test_a_window_against_the_models_own(self) -> None:
        with pytest.raises(InvalidParameter) as caught:
            resolve(UpscaleParams(controls=[{"name": "canny", "start": 0.8}]), CONTROLLED, 0)
        assert (caught.value.field, caught.value.allowed) == ("controls", "below 0.8")


class TestAdapters:
    def test_one_is_asked_for_by_name(self) -> None:
        found = resolve(UpscaleParams(lora="hyper", lora_scale=0.5), CONTROLLED, 0)
        assert (found.lora, found.lora_scale) == ("hyper", 0.5)
        assert resolve(UpscaleParams(lora=""), MODEL, 0).lora == ""

    @pytest.mark.parametrize(
        ("model", "allowed"), [(CONTROLLED, "turbo, hyper"), (MODEL, "absent or empty")]
    )
    def test_what_is_not_offered(self, model: ModelInfo, allowed: str) -> None:
        with pytest.raises(InvalidParameter) as caught:
            resolve(UpscaleParams(lora="lightning"), model, 0)
        assert (caught.value.field, caught.value.allowed) == ("lora", allowed)


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({}, ()),
        ({"prompt": "cat"}, ("cat",)),
        ({"prompt": "cat", "negative_prompt": "fog"}, ("cat",)),
        ({"prompt": "cat", "negative_prompt": "fog", "true_cfg_scale": 2}, ("cat", "fog")),
        ({"prompt": "cat", "negative_prompt": "cat", "true_cfg_scale": 2}, ("cat",)),
        ({"negative_prompt": "fog", "true_cfg_scale": 2}, ("fog",)),
    ],
    ids=str,
)
def test_only_texts_that_act_are_encoded_and_once(
    given: dict[str, Any], texts: tuple[str, ...]
) -> None:
    assert resolve(UpscaleParams(**given), PROMPTED, 0).texts == texts
