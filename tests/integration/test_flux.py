"""A FLUX-shaped model with text encoders and adapters, through the whole graph: prompts and LoRA by name."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import ray
from PIL import Image
from ray import serve

from serve_app.app import build_app
from serve_app.settings import Settings
from serve_app.testing import photo_like, png_bytes
from tests.integration.conftest import Application
from tests.tiny_flux import build_tiny_flux
from tests.tiny_lora import save_tiny_lora

pytestmark = pytest.mark.integration

NAME = "flux"
PICTURE = png_bytes(photo_like(8, 8))  # one tile


@pytest.fixture(scope="module")
def flux(cluster_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """A model folder that nobody has used yet; a prompt costs the encoders' start."""
    model = build_tiny_flux(tmp_path_factory.mktemp("flux"))
    loras = tmp_path_factory.mktemp("loras")
    save_tiny_lora(model, loras / "turbo")
    (loras / "broken.safetensors").write_bytes(b"no tensors")
    settings = Settings.parse(
        {
            "model": {"source": str(model), "loras": str(loras)},
            "prompts": {"tokens": 128, "cpus": 0.2, "dtype": "float32"},
            "jobs": {"enabled": False},
        }
    )
    serve.run(build_app(settings), name=NAME, route_prefix=f"/{NAME}")
    url = f"http://127.0.0.1:{cluster_port}/{NAME}"
    yield Application(url, serve.get_app_handle(NAME), settings)
    serve.delete(NAME)


def post(app: Application, **form: Any) -> httpx.Response:
    with app.client() as client:
        return client.post("/v1/upscale", files={"image": PICTURE}, data={"seed": 7} | form)


def picture(app: Application, **form: Any) -> bytes:
    """The pixels alone: a file also tells what was asked for."""
    answer = post(app, **form)
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content)).tobytes()


def encoders_running() -> int:
    deployment = serve.status().applications[NAME].deployments["PromptEncoder"]
    return deployment.replica_states.get("RUNNING", 0)


def replicas() -> dict[str, Any]:
    """The actors of all running replicas, by deployment."""
    found = [
        (actor["name"], ray.get_actor(actor["name"], actor["namespace"]))
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if actor["name"].startswith(f"SERVE_REPLICA::{NAME}#")
    ]
    return {name.split("#")[1]: actor for name, actor in found}


def test_a_prompt_starts_the_encoders_and_changes_the_picture(flux: Application) -> None:
    plain = picture(flux)
    assert encoders_running() == 0
    house = picture(flux, prompt="a house")
    assert encoders_running() == 1
    assert picture(flux, prompt="a house") == house
    assert picture(flux, prompt="a mouse") != house
    assert house != plain
    assert picture(flux) == plain


def test_a_negative_prompt_acts_with_true_cfg(flux: Application) -> None:
    without = picture(flux, prompt="a house")
    assert picture(flux, prompt="a house", negative_prompt="fog") == without
    assert picture(flux, prompt="a house", negative_prompt="fog", true_cfg_scale=4) != without


def test_the_denoiser_holds_no_text_encoder(flux: Application) -> None:
    def text_encoders(_: object) -> list[str]:
        gc.unfreeze()  # Ray Serve hides from the collector what a replica made at its start
        kinds = {"CLIPTextModel", "T5EncoderModel"}
        return [type(found).__name__ for found in gc.get_objects() if type(found).__name__ in kinds]

    picture(flux, prompt="a house")
    held = {
        name: ray.get(actor.__ray_call__.remote(text_encoders))
        for name, actor in replicas().items()
    }
    assert held.keys() > {"Denoiser", "PromptEncoder"}
    assert [name for name, found in held.items() if found] == ["PromptEncoder"]


def test_a_killed_encoder_does_not_cost_the_request(flux: Application) -> None:
    house = picture(flux, prompt="a house")
    ray.kill(replicas()["PromptEncoder"])
    assert picture(flux, prompt="a house") == house


def test_the_model_tells_its_adapters(flux: Application) -> None:
    with flux.client() as client:
        (model,) = client.get("/v1/models").json()["models"]
    assert model["loras"] == ["broken", "turbo"]


def test_an_adapter_changes_the_picture_and_leaves_no_trace(flux: Application) -> None:
    plain = picture(flux)
    adapted = picture(flux, lora="turbo")
    assert adapted != plain
    assert picture(flux, lora="turbo", lora_scale=0.3) not in (adapted, plain)
    assert picture(flux, lora="turbo") == adapted
    assert picture(flux) == plain


def test_a_broken_adapter_fails_its_request_alone(flux: Application) -> None:
    plain = picture(flux)
    answer = post(flux, lora="broken")
    assert answer.status_code >= 500
    assert answer.json()["type"].endswith("tile-failed")
    assert "'broken'" in answer.json()["detail"]
    assert picture(flux) == plain


def test_an_unknown_adapter_is_refused_with_those_that_are_known(flux: Application) -> None:
    answer = post(flux, lora="hyper")
    assert answer.status_code == 422
    assert (answer.json()["field"], answer.json()["allowed"]) == ("lora", "broken, turbo")
