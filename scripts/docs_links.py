"""Keeps the site whole: a link that leaves docs/ leads to a page of the site, or becomes the file's name.

A hook of MkDocs. The repository's own documents are shown as pages under repository/, so that what docs/ says
of them can be followed; source code is named, not shown. It refuses to know where the repository is published.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SHOWN = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "configs/gpu.yaml",
    "configs/kuberay.yaml",
    "configs/local.yaml",
    "examples/README.md",
    "k8s/README.md",
    "serve_app/models/mini/README.md",
    "tests/acceptance/originals/README.md",
    "tests/corpus/README.md",
)
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)


def place_of(file: str) -> str:
    """Where the site has a file of the repository: `k8s/README.md` at `repository/k8s.md`."""
    path = PurePosixPath(file)
    name = path.parent if path.name == "README.md" and path.parent.name else path.with_suffix("")
    return f"repository/{'-'.join(name.parts).lower()}.md"


def rewritten(markdown: str, file: str) -> str:
    """Mends the links of a document, outside its blocks of code.

    Args:
        markdown: Its text.
        file: Its path in the repository.

    Returns:
        The text with links that lead somewhere from where the site has the document.
    """
    page = file.removeprefix("docs/") if file.startswith("docs/") else place_of(file)

    def mended(match: re.Match[str]) -> str:
        text, (target, mark, anchor) = match[1], match[2].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
        place = _in_site(found)
        if place is None:
            return text if text.strip("`") in found else f"{text} (`{found}`)"
        return f"[{text}]({posixpath.relpath(place, posixpath.dirname(page) or '.')}{mark}{anchor})"

    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(mended, part) for part in parts[::2]]
    return "".join(parts)


def _in_site(file: str) -> str | None:
    if file.startswith("docs/"):
        return file.removeprefix("docs/")
    return place_of(file) if file in SHOWN else None


def on_config(config: MkDocsConfig) -> None:
    """Spells out `folder/*` in the navigation."""

    def spelled(item: Any) -> Any:
        if isinstance(item, list):
            return [spelled(child) for child in item]
        if isinstance(item, dict):
            return {title: spelled(child) for title, child in item.items()}
        if not item.endswith("/*"):
            return item
        if item == "repository/*":
            return [place_of(file) for file in SHOWN]
        folder = Path(config.docs_dir) / item.removesuffix("/*")
        pages = sorted(folder.glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
        return [path.relative_to(config.docs_dir).as_posix() for path in pages]

    config.nav = spelled(config.nav)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the repository's own documents."""
    for name in SHOWN:
        text = (ROOT / name).read_text()
        if not name.endswith(".md"):
            kind = "yaml" if name.endswith(".yaml") else "text"
            text = f"# {name}\n\n```{kind}\n{text}```\n"
        files.append(File.generated(config, place_of(name), content=rewritten(text, name)))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str | None:
    """Mends the pages of docs/."""
    if page.file.generated_by is not None:
        return None
    return rewritten(markdown, f"docs/{page.file.src_uri}")
