"""The folders that are pushed, and what they promise the hub."""

import re
from pathlib import Path
from typing import Any

import build_space
import pytest
import yaml

from serve_app.models.catalog import find_model, read_model_info

ROOT = Path(__file__).parents[3]
SPACES = ROOT / "spaces"


def front_matter(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        (SPACES / kind / "README.md").read_text().split("---")[1]
    )
    return found


def test_the_requirements_are_the_packages_own():
    stated = (SPACES / "gradio" / "requirements.txt").read_text().splitlines()
    assert stated == build_space.requirements(), "copy what build_space.requirements() says"
    assert "pillow>=12.3,<13" in stated
    assert not [line for line in stated if line.startswith(("ray", "gradio"))]


def test_the_builders_gradio_is_the_pinned_one():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"gradio=={front_matter('gradio')['sdk_version']}" in pins


def test_what_is_preloaded_is_part_of_the_model():
    parts = read_model_info(find_model("flux-dev-upscaler", None)).components.values()
    repositories = {re.split("[@:]", part)[0] for part in parts}
    front = front_matter("gradio")
    assert {line.split()[0] for line in front["preload_from_hub"]} <= repositories
    assert set(front["models"]) == repositories


def test_the_docker_space_listens_where_the_hub_looks():
    dockerfile = (SPACES / "docker" / "Dockerfile").read_text()
    port = front_matter("docker")["app_port"]
    assert f"PORT={port}\n" in dockerfile
    assert f"EXPOSE {port}\n" in dockerfile


@pytest.mark.parametrize(("kind", "start"), [("gradio", "app.py"), ("docker", "Dockerfile")])
def test_a_folder_has_all_that_it_starts_with(kind: str, start: str, tmp_path: Path):
    out = tmp_path / "space"
    build_space.build(kind, out)
    for name in (start, "README.md", "LICENSE", "serve_app/models/mini/tessera.json"):
        assert (out / name).is_file()
    assert list((out / "examples").glob("*.jpg"))
    assert not list(out.rglob("__pycache__"))
    with pytest.raises(FileExistsError):
        build_space.build(kind, out)
