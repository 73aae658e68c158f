"""Puts together the folder that is pushed to a Hugging Face Space: `build_space.py gradio|docker OUT`.

The Gradio Space has the package's code beside its `app.py`: its builder installs Gradio, which asks for an
older Pillow than the package does, so the package itself cannot be installed there. The Docker Space has the
repository's own files, which its Dockerfile installs. docs/space.md says how to push either.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = "serve_app"
FILES = {
    "gradio": ("LICENSE",),
    "docker": ("LICENSE", "constraints.txt", "pyproject.toml"),
}
NOT_IN_ONE_PROCESS = (
    "aiosqlite",
    "asyncpg",
    "fastapi-offline",
    "grpcio",
    "prometheus-client",
    "protobuf",
    "ray",
)
"""Requirements of the Ray Serve application, its API and its durable jobs alone."""
INSTEAD = {"pillow": "pillow>=12.3,<13"}
"""What Gradio leaves of a requirement: docs/decisions/0020-page.md."""
HUB = "spaces>=0.51"


def requirements() -> list[str]:
    """The Gradio Space's requirements, from the package's own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = {
        _name(line): line
        for line in (*project["dependencies"], *extras["client"], *extras["serve"])
    }
    for name in (project["name"], *NOT_IN_ONE_PROCESS):
        del needed[name]
    return [INSTEAD.get(name, needed[name]) for name in sorted(needed)] + [HUB]


def build(kind: str, out: Path) -> None:
    """Fills a folder.

    Args:
        kind: `gradio` or `docker`.
        out: Must not exist, or be empty.

    Raises:
        FileExistsError: if something lies there.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty")
    out.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in (*FILES[kind], CODE):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, out / name, ignore=ignored)
        else:
            shutil.copy2(source, out / name)
    (out / "examples").mkdir()
    for picture in sorted((ROOT / "examples").glob("*.jpg")):
        shutil.copy2(picture, out / "examples")
    shutil.copytree(ROOT / "spaces" / kind, out, ignore=ignored, dirs_exist_ok=True)


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0].lower().replace("_", "-") if found else requirement


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Puts a Space's folder together.")
    parser.add_argument("kind", choices=sorted(FILES))
    parser.add_argument("out", type=Path, help="the folder to make")
    options = parser.parse_args()
    build(options.kind, options.out)
    print(f"{options.out}: ready to be pushed, see docs/space.md")


if __name__ == "__main__":
    main()
