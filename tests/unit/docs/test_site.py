"""The documentation's site: it builds without a broken link, asks no other host, and its reference is whole."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from serve_app.contracts import UpscaleParams
from serve_app.settings import PageSettings, Settings

ROOT = Path(__file__).parents[3]
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]+src=["']?(?:https?:)?//[^>]*>"""
    r"""|<link[^>]+(?:stylesheet|preload|icon)[^>]+href=["']?(?:https?:)?//[^>]*>"""
)


def hook(name: str) -> ModuleType:
    spec = spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


links = hook("docs_links")
reference = hook("docs_reference")


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", site]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_nothing_comes_from_another_host(site: Path) -> None:
    pages = list((ROOT / "docs").rglob("*.md"))
    built = {page: page.read_text() for page in site.rglob("*.html")}
    assert len(built) > len(pages)
    assert [page for page, text in built.items() if FETCHED.search(text)] == []


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("[gone](gone.md)\n")
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: {docs}\nhooks: []\nnav: [index.md]\n"
    )
    done = build(config, tmp_path / "site")
    assert done.returncode != 0
    assert "gone.md" in done.stderr


@pytest.mark.parametrize(
    ("link", "file", "expected"),
    [
        ("[a](jobs.md#x)", "docs/flux.md", "[a](jobs.md#x)"),
        ("[a](../configs/local.yaml)", "docs/page.md", "[a](repository/configs-local.md)"),
        ("[a](../../k8s/README.md)", "docs/howto/cluster.md", "[a](../repository/k8s.md)"),
        ("[a](docs/jobs.md#x)", "README.md", "[a](../jobs.md#x)"),
        ("![a](docs/images/demo.png)", "README.md", "![a](../images/demo.png)"),
        ("[the nodes](base/ray.yaml)", "k8s/README.md", "the nodes (`k8s/base/ray.yaml`)"),
        ("[base/ray.yaml](base/ray.yaml)", "k8s/README.md", "base/ray.yaml"),
        ("[a](https://example.org/a.md)", "docs/flux.md", "[a](https://example.org/a.md)"),
        ("```\n[a](../LICENSE)\n```", "docs/flux.md", "```\n[a](../LICENSE)\n```"),
    ],
)
def test_links(link: str, file: str, expected: str) -> None:
    assert links.rewritten(link, file) == expected


def test_what_is_shown_exists() -> None:
    assert [name for name in links.SHOWN if not (ROOT / name).is_file()] == []


def fields(kind: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for name, field in kind.model_fields.items():
        inner = reference.group_of(field)
        if inner is None:
            yield name, field.description or ""
        else:
            yield from fields(inner)


@pytest.mark.parametrize("kind", [Settings, PageSettings])
def test_every_setting_is_in_the_reference(kind: type[BaseModel]) -> None:
    page = reference.settings_page()
    found = list(fields(kind))
    assert len(found) >= 4
    assert [name for name, told in found if f"| `{name}` |" not in page or told not in page] == []


def test_secrets_of_the_environment_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "whsec_" + "QUFB" * 8
    monkeypatch.setenv("TESSERA_WEBHOOK_SECRETS", secret)
    assert secret not in reference.settings_page()


def test_every_parameter_route_error_and_command_is_in_the_reference() -> None:
    parameters, http = reference.parameters_page(), reference.http_page()
    assert [name for name in UpscaleParams.model_fields if f"`{name}`" not in parameters] == []
    for route in ("POST /v1/upscale", "POST /v1/jobs", "GET /v1/models", "POST /v1/predictions"):
        assert f"### {route}\n" in http
    kinds: Any = reference.problems.STATUS
    assert [kind for kind in kinds if f"`{kind.__name__}`" not in reference.errors_page()] == []
    for command in ("tessera upscale", "tessera jobs submit", "tessera inspect", "tessera models"):
        assert f"## {command}\n" in reference.cli_page()
