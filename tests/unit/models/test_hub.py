"""The hub's own client downloads from a server that answers as the hub does: once, and again what broke."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serve_app.models.catalog import find_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/house"
SOURCE = f"{REPOSITORY}@v1"
TESSERA = json.dumps(
    {
        "name": "house",
        "description": "For tests.",
        "license": "Apache-2.0",
        "tile_px": 64,
        "overlap_px": 16,
        "align_px": 16,
    }
)
FILES = {
    "tessera.json": TESSERA.encode(),
    "whole-model.safetensors": b"large and not needed",
    "transformer/config.json": b"{}",
    "transformer/weights.safetensors": bytes(range(256)) * 100,
    "text_encoder/model.safetensors": b"not asked for",
}
SCRIPT = """
import sys
from serve_app.models.catalog import find_model, read_model_info
from serve_app.models.source import find_part
folder = find_model(sys.argv[1], sys.argv[2])
print(find_part(read_model_info(folder), folder, "transformer", sys.argv[2]))
"""


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as `snapshot_download` asks for."""

    gets: Counter[str]
    files: dict[str, bytes]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, send: bool) -> None:
        path = self.path.partition("?")[0]
        facts = f"/api/models/{REPOSITORY}"
        if path == f"{facts}/revision/v1":
            self._send({"id": REPOSITORY, "sha": COMMIT, "siblings": []}, send)
        elif path.startswith(f"{facts}/tree/"):
            self._send([self._entry(name, content) for name, content in self.files.items()], send)
        else:
            name = path.partition(f"/{COMMIT}/")[2]
            if name not in self.files:
                self.send_error(404)
                return
            self.gets[name] += send
            content = self.files[name]
            large = name.endswith(".safetensors")
            digest = hashlib.sha256(content).hexdigest() if large else git_digest(content)
            self._send(content, send, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})

    @staticmethod
    def _entry(name: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": name, "size": len(content), "oid": git_digest(content)}
        if name.endswith(".safetensors"):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 100}
        return entry

    def _send(self, content: Any, send: bool, headers: dict[str, str] | None = None) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if send:
            self.wfile.write(raw)


class HubServer(ThreadingHTTPServer):
    daemon_threads = True


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    handler = type("OneHub", (Hub,), {"gets": Counter(), "files": dict(FILES)})
    server = HubServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def start(url: str, cache: Path) -> subprocess.Popen[str]:
    online = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", SCRIPT, SOURCE, str(cache)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=os.environ | online, **pipes)


def finish(process: subprocess.Popen[str]) -> Path:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return Path(out.strip().splitlines()[-1])


def test_processes_fetch_a_part_once_and_nothing_else(hub: tuple[str, type[Hub]], tmp_path: Path):
    url, handler = hub
    parts = {finish(process) for process in [start(url, tmp_path) for _ in range(2)]}
    (part,) = parts
    weights = FILES["transformer/weights.safetensors"]
    assert (part / "weights.safetensors").read_bytes() == weights
    wanted = {"tessera.json", "transformer/config.json", "transformer/weights.safetensors"}
    assert handler.gets == dict.fromkeys(wanted, 1)


def test_a_broken_file_is_fetched_again_and_no_other(hub: tuple[str, type[Hub]], tmp_path: Path):
    url, handler = hub
    part = finish(start(url, tmp_path))
    blob = (part / "weights.safetensors").resolve()
    blob.write_bytes(b"X" + blob.read_bytes()[1:])
    assert finish(start(url, tmp_path)) == part
    assert blob.read_bytes() == FILES["transformer/weights.safetensors"]
    assert handler.gets["transformer/weights.safetensors"] == 2
    assert handler.gets["transformer/config.json"] == 1


def test_a_repository_without_a_description_says_how_to_write_one(
    hub: tuple[str, type[Hub]], tmp_path: Path
):
    url, handler = hub
    handler.files["model_index.json"] = b"{}"
    del handler.files["tessera.json"]
    process = start(url, tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"{SOURCE} has no tessera.json" in err
    assert "docs/flux.md" in err
    assert not handler.gets["whole-model.safetensors"]


def test_what_was_fetched_is_found_offline(hub: tuple[str, type[Hub]], tmp_path: Path):
    finish(start(hub[0], tmp_path))
    assert (find_model(SOURCE, str(tmp_path)) / "tessera.json").read_text() == TESSERA
