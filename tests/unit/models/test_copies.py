"""Real processes copy from a real server: once for all, whole or not at all, and again what was broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from serve_app.errors import ConfigurationError
from serve_app.models.copies import copy_once, is_intact, origin_of

WEIGHTS = "weights.safetensors"
CONTENT = {WEIGHTS: bytes(range(256)) * 4096, "config.json": b"{}"}


class Server(ThreadingHTTPServer):
    """Serves a folder; `gets` counts what was asked for, `cut` and `held` spoil or hold the weights."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.gets: Counter[str] = Counter()
        self.cut = 0
        self.held = threading.Event()
        self.held.set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/model"


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.gets[name] += 1
        super().do_GET()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if not self.path.endswith(WEIGHTS):
            return super().copyfile(source, outputfile)
        outputfile.write(source.read(1000))
        outputfile.flush()
        if self.server.cut:
            self.server.cut -= 1
            return None
        self.server.held.wait(60)
        return super().copyfile(source, outputfile)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "served" / "model"
    made.mkdir(parents=True)
    for name, content in CONTENT.items():
        (made / name).write_bytes(content)
    (made / "below").mkdir()
    (made / "below" / "more.json").write_text("{}")
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder.parent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.held.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def start_copying(url: str, cache: Path) -> subprocess.Popen[str]:
    script = (
        "import sys; from pathlib import Path; from serve_app.models.copies import copy_once;"
        "print(copy_once(sys.argv[1], Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", script, url, str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def files_of(copy: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in copy.iterdir() if not f.name.startswith(".")}


def test_processes_that_ask_together_fetch_once(server: Server, cache: Path):
    server.held.clear()
    asking = [start_copying(server.url, cache) for _ in range(3)]
    while not server.gets[WEIGHTS]:
        time.sleep(0.01)
    server.held.set()
    copies = {process.communicate(timeout=60)[0].strip() for process in asking}
    assert [process.returncode for process in asking] == [0, 0, 0]
    (copy,) = copies
    assert server.gets[WEIGHTS] == 1
    assert files_of(Path(copy)) == CONTENT


def test_a_process_killed_half_way_leaves_no_copy_and_no_lock(server: Server, cache: Path):
    server.held.clear()
    process = start_copying(server.url, cache)
    while not any(cache.glob(f"*.partial/{WEIGHTS}")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    left = [path for path in cache.iterdir() if path.is_dir()]
    assert [path.suffix for path in left] == [".partial"]
    server.held.set()
    copy = copy_once(server.url, cache)
    assert files_of(copy) == CONTENT
    assert [path for path in cache.iterdir() if path.is_dir()] == [copy]


def test_an_answer_that_ends_early_is_asked_for_again(server: Server, cache: Path):
    server.cut = 2
    assert files_of(copy_once(server.url, cache)) == CONTENT
    assert server.gets[WEIGHTS] == 3


def test_an_answer_that_always_ends_early_is_an_error_and_no_copy(server: Server, cache: Path):
    server.cut = 100
    with pytest.raises(ConfigurationError, match=WEIGHTS) as caught:
        copy_once(server.url, cache)
    assert caught.value.field == "model.source"
    assert not any(is_intact(path) for path in cache.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "one byte", "missing", "no manifest", "manifest"])
def test_a_broken_copy_is_seen_and_fetched_again(server: Server, cache: Path, damage: str):
    copy = copy_once(server.url, cache)
    weights, manifest = copy / WEIGHTS, next(copy.glob(".*.json"))
    if damage == "truncated":
        weights.write_bytes(CONTENT[WEIGHTS][:-1])
    elif damage == "one byte":
        with weights.open("r+b") as file:
            file.seek(500_000)
            file.write(b"\xff" if CONTENT[WEIGHTS][500_000] != 255 else b"\x00")
    elif damage == "missing":
        weights.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("{")
    assert not is_intact(copy)
    assert copy_once(server.url, cache) == copy
    assert files_of(copy) == CONTENT
    assert server.gets[WEIGHTS] == 2


def test_a_whole_copy_is_not_fetched_again_though_it_was_touched(server: Server, cache: Path):
    copy = copy_once(server.url, cache)
    os.utime(copy / WEIGHTS)
    assert copy_once(server.url, cache) == copy
    assert server.gets[WEIGHTS] == 1


def test_changed_content_is_another_copy_and_the_old_one_stays(
    server: Server, folder: Path, cache: Path
):
    old = copy_once(server.url, cache)
    (folder / WEIGHTS).write_bytes(b"new")
    new = copy_once(server.url, cache)
    assert (new / WEIGHTS).read_bytes() == b"new"
    assert files_of(old) == CONTENT


def test_changed_content_of_equal_size_is_told_by_its_time(folder: Path, cache: Path):
    old = copy_once(folder.as_uri(), cache)
    (folder / "config.json").write_bytes(b"[]")
    os.utime(folder / "config.json", (1, 1))
    assert copy_once(folder.as_uri(), cache) != old


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_any_fsspec_url_will_do(folder: Path, cache: Path, scheme: str):
    url = folder.as_uri()
    if scheme == "memory":
        url = f"memory://{folder.name}"
        fsspec.filesystem("memory").pipe({f"{folder.name}/{k}": v for k, v in CONTENT.items()})
    copy = copy_once(url, cache)
    assert files_of(copy) == CONTENT
    assert origin_of(copy) == url


def test_only_what_is_wanted_is_copied(folder: Path, cache: Path):
    assert files_of(copy_once(folder.as_uri(), cache, ["*.json"])) == {"config.json": b"{}"}


def test_a_folder_that_is_no_copy_has_no_origin(folder: Path):
    assert origin_of(folder) is None
    assert not is_intact(folder)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/model", "file:///nowhere/at/all", "s3q://bucket/model"]
)
def test_what_cannot_be_read_is_named(url: str, cache: Path):
    with pytest.raises(ConfigurationError) as caught:
        copy_once(url, cache)
    assert caught.value.field == "model.source"
    assert url in caught.value.detail


def test_a_cache_that_cannot_be_written_is_named(folder: Path, tmp_path: Path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ConfigurationError) as caught:
        copy_once(folder.as_uri(), tmp_path / "cache")
    assert caught.value.field == "model.cache_dir"
