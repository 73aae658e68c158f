"""The snippets of the README and of docs/: each is run here, is checked against its schema, or says why not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from PIL import Image

from serve_app.contracts import ModelInfo
from serve_app.settings import PageSettings, Settings
from tests.integration.conftest import Application

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
MINI = ROOT / "serve_app" / "models" / "mini"
BASE_URL = "http://127.0.0.1:8000"
PAGES = [
    ROOT / "README.md",
    ROOT / "k8s" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
]
_WRITTEN = re.compile(r"""(?:-o |(?:save|download)\("|Path\("(?=[^"]+"\)\.write))([\w./-]+)""")
_BLOCK = re.compile(r"^```(sh|bash|python|json|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)

# Snippets that are not run, by page and the beginning of their first line, and why.
NOT_RUN = {
    ("README.md", "make run"): "installs and starts a server until it is stopped",
    ("k8s/README.md", "helm repo add"): "needs a cluster",
    ("k8s/README.md", "kubectl -n tessera create"): "needs a cluster",
    ("docs/client.md", "pip install"): "installs",
    ("docs/controls.md", "tessera models"): "needs a model with more controls: test_controls.py",
    ("docs/flux.md", ".venv/bin/hf auth"): "needs a token, a licence and a GPU",
    ("docs/howto/cluster.md", "kubectl apply"): "needs a cluster",
    ("docs/howto/gpu.md", ".venv/bin/hf auth"): "needs a token, a licence and a GPU",
    ("docs/howto/laptop.md", "make run"): "installs and starts a server until it is stopped",
    ("docs/image-url.md", "curl --json"): "fetches from a public host: test_image_url.py",
    ("docs/jobs.md", '{"type":"job.finished"'): "a message, cut short: unit/jobs/test_webhooks.py",
    ("docs/page.md", "from gradio_client"): "needs the page: test_ui.py drives its endpoints",
    ("docs/pipelines.md", "python examples/ray_data.py"): "starts a Ray: test_pipelines.py",
    ("docs/pipelines.md", "python -m serve_app.app"): "a server that runs until it is stopped",
    ("docs/pipelines.md", "import grpc"): "needs a gRPC port: test_grpc.py",
    ("docs/quickstart.md", "make run"): "installs and starts a server until it is stopped",
    ("docs/space.md", "python scripts/build_space.py"): "needs an account: test_spaces.py",
}

# What a Python snippet takes for granted, and what it must have come to.
BEFORE = {"import webuiapi": "from PIL import Image\npicture = Image.open('photo.jpg')\n"}
AFTER = {
    "import webuiapi": "assert larger.size == (300, 200)",
    "from openai": "assert made.data[0].b64_json",
    "import replicate": "assert url",
}


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    @property
    def first(self) -> str:
        return self.text.strip().splitlines()[0]

    @property
    def reason(self) -> str | None:
        return next(
            (
                why
                for (page, start), why in NOT_RUN.items()
                if page == self.page and self.first.startswith(start)
            ),
            None,
        )

    def __str__(self) -> str:
        return f"{self.page}: {self.first[:40]}"


def snippets() -> list[Snippet]:
    found = []
    for path in PAGES:
        page = path.relative_to(ROOT).as_posix()
        found += [
            Snippet(page, kind, textwrap.dedent(text))
            for kind, text in _BLOCK.findall(path.read_text())
        ]
    ways = (ROOT / "README.md").read_text().split("## Ways in")[1].split("\n## ")[0]
    commands = re.findall(r"`((?:curl|tessera) (?!inspect|models|upscale --report)[^`]+)`", ways)
    return found + [Snippet("README.md", "sh", command + "\n") for command in commands]


SNIPPETS = snippets()
RUN = [snippet for snippet in SNIPPETS if snippet.reason is None]


def of(*languages: str) -> list[Snippet]:
    return [snippet for snippet in RUN if snippet.language in languages]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the snippets name: small copies of the examples under several names."""
    for folder in ("examples", "photos", "folder"):
        (tmp_path / folder).mkdir()
    for source in ("photo.jpg", "astronaut.jpg"):
        with Image.open(ROOT / "examples" / source) as picture:
            small = picture.convert("RGB").resize((75, 50))
        small.save(tmp_path / "examples" / source)
        small.save(tmp_path / "photos" / source)
    for name in ("photo.jpg", "a.jpg", "b.png", "page.png", "family.jpg", "folder/c.png"):
        small.save(tmp_path / name)
    small.save(tmp_path / "cat.gif", save_all=True, append_images=[small.rotate(180)])
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(tmp_path / "a.jpg", "a.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: list[str], server: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    known = os.environ | {"PATH": path, "TESSERA_SERVER": server}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=known)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_outputs(text: str) -> None:
    """Every file or folder that a snippet says it writes is there, and holds pictures."""
    for name in _WRITTEN.findall(text):
        path = Path(name)
        assert path.exists(), name
        files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
        assert files, name
        for file in files:
            if file.suffix == ".zip":
                with zipfile.ZipFile(file) as archive:
                    assert archive.namelist()
            elif file.suffix != ".json":
                with Image.open(file) as picture:
                    picture.load()


# The tests


def test_every_reason_belongs_to_a_snippet() -> None:
    known = {(s.page, start) for s in SNIPPETS for _, start in NOT_RUN if s.first.startswith(start)}
    assert NOT_RUN.keys() - known == set()
    assert len(RUN) > 25


@pytest.mark.parametrize("snippet", of("sh", "bash"), ids=str)
def test_commands(snippet: Snippet, application: Application, place: Path) -> None:
    text = snippet.text.replace(BASE_URL, application.url)
    if "serve_app/" in text:
        shutil.copytree(MINI, "serve_app/models/mini")
    head, *rest = text.strip().replace("\\\n", "").splitlines()
    if "JOB" in text:  # the id that the first command answers with
        job = json.loads(run(["bash", "-euc", head], application.url))["id"]
        run(["bash", "-euc", "\n".join(rest).replace("JOB", job)], application.url)
    else:
        said = run(["bash", "-euo", "pipefail", "-c", text], application.url)
        assert "problem+json" not in said
        assert "urn:tessera:problem" not in said
    check_outputs(text)


@pytest.mark.parametrize("snippet", of("python"), ids=str)
def test_python(snippet: Snippet, application: Application, place: Path) -> None:
    text = snippet.text.replace(BASE_URL, application.url)
    if "my-model" in text:
        shutil.copytree(MINI, "my-model")
    whole = "\n".join(
        [
            *(said for start, said in BEFORE.items() if text.startswith(start)),
            text,
            *(said for start, said in AFTER.items() if text.startswith(start)),
        ]
    )
    if "serve.get_app_handle" in text:  # by a program of the same cluster, such as this one
        exec(compile(whole, str(snippet), "exec"), {"__name__": "snippet"})
    else:
        run([sys.executable, "-P", "-c", whole], application.url)
    check_outputs(text)


@pytest.mark.parametrize("snippet", of("yaml"), ids=str)
def test_settings(snippet: Snippet) -> None:
    found = yaml.safe_load(snippet.text)
    applications = found.get("applications", [{"args": found.get("args", found)}])
    for application in applications:
        page = application.get("import_path", "").endswith("build_page_app")
        parse = PageSettings.model_validate if page else Settings.parse
        assert parse(application["args"]).model_fields_set == set(application["args"])


@pytest.mark.parametrize("snippet", of("json"), ids=str)
def test_descriptions_of_models(snippet: Snippet) -> None:
    assert ModelInfo.model_validate_json(snippet.text).tile_px > 0
