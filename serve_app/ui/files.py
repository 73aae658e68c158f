"""Where the page keeps results for browsers, and for how long.

It refuses to know what the files hold.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from pathlib import Path


class Shelf:
    """A folder of its own, whose old files go when new ones come.

    Args:
        kept_s: Seconds that files are kept.
        folder: None makes a temporary one.
    """

    def __init__(self, kept_s: float = 86400, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="tessera-page-"))
        self._kept_s = kept_s

    def place(self, job_id: str, name: str) -> Path:
        """A path for a job's file; makes its folder, and room."""
        self._sweep()
        folder = self.folder / re.sub(r"[^\w-]", "_", job_id)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / (re.sub(r"[^\w .()-]", "_", Path(name).name).lstrip(".") or "picture")

    def _sweep(self) -> None:
        oldest = time.time() - self._kept_s
        for folder in self.folder.iterdir():
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def url_of(path: str | Path) -> str:
    """Where Gradio serves a file, relative to the page."""
    return f"gradio_api/file={path}"


def result_name(source_name: str, media_type: str) -> str:
    """`photo.jpg` comes back as `photo-upscaled.png`."""
    return f"{Path(source_name).stem[:80] or 'picture'}-upscaled.{media_type.split('/')[1]}"
