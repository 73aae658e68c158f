"""`tessera jobs`, run as the command is, against a server on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.cli import main
from serve_app.cli.board import Board
from serve_app.cli.jobs import stems_of
from tests.unit.api.jobs.conftest import PICTURES
from tests.unit.live_jobs import JobServer, serving_jobs

UNKNOWN = f"job_{'0' * 26}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobServer]:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for name, data in zip(("a.png", "b.png", "c.png"), PICTURES, strict=True):
        Path("in", name).write_bytes(data)
    Path("in", "notes.txt").write_text("no picture")
    with serving_jobs(tmp_path) as found:
        monkeypatch.setenv("TESSERA_SERVER", found.url)
        yield found


def jobs(*arguments: str) -> int:
    return main(["jobs", *arguments])


def submitted(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert jobs("submit", "in", *arguments) == 0
    return capsys.readouterr().out.strip()


class TestSubmit:
    def test_prints_the_id(self, server: JobServer, capsys: pytest.CaptureFixture[str]) -> None:
        assert jobs("submit", "in", "--scale", "2", "--seed", "5", "--tenant", "mine") == 0
        told = capsys.readouterr()
        assert told.err == "tessera: in/notes.txt: skipped, not a picture\n"
        assert jobs("list", "--json", "--tenant", "mine") == 0
        (job,) = json.loads(capsys.readouterr().out)
        assert told.out == f"{job['id']}\n"
        assert (job["params"]["scale"], job["params"]["seed"]) == (2, 5)
        assert (job["priority"], job["counts"]["total"]) == ("batch", 3)
        assert jobs("list") == 0
        assert capsys.readouterr().out == ""

    def test_one_key_is_one_job(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        key = ("--idempotency-key", "once", "--priority", "interactive")
        assert submitted(capsys, *key) == submitted(capsys, *key)
        assert jobs("submit", "in/a.png", *key) == 1
        assert "Idempotency-Key" in capsys.readouterr().err

    def test_watches_where_wished(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert jobs("submit", "in", "--watch", "-o", "out") == 0
        job_id, *lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"{job_id}: 0 of 3 done, 3 waiting"
        assert {f"{job_id}: succeeded: 3 of 3 done", "a.png -> out/a.png"} < set(lines)
        assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png", "c.png"]

    def test_mistakes(self, server: JobServer, capsys: pytest.CaptureFixture[str]) -> None:
        Path("empty").mkdir()
        assert jobs("submit", "empty") == 2
        assert jobs("submit", "missing.png") == 2
        assert "No such file" in capsys.readouterr().err
        assert jobs("submit", "in", "--steps", "0") == 2
        assert jobs("submit", "in", "--webhook-url", "https://example.org") == 1
        assert "webhooks are switched off here" in capsys.readouterr().err


class TestWatch:
    def test_events_as_json_lines_from_any_on(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        job_id = submitted(capsys)
        assert jobs("watch", job_id, "--json") == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [event["sequence"] for event in events] == list(range(1, 9))
        assert events[-1]["event"] == "job.finished"
        assert jobs("watch", job_id, "--json", "--after", "6") == 0
        lines = capsys.readouterr().out.splitlines()
        assert list(map(json.loads, lines)) == events[6:]

    def test_an_ended_job_is_told_and_its_results_are_fetched(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("in/b.png").write_bytes(PICTURES[1][:60])
        job_id = submitted(capsys)
        assert jobs("watch", job_id) == 1
        capsys.readouterr()
        assert jobs("watch", job_id, "-o", "out") == 1
        told = capsys.readouterr().out.splitlines()
        assert told[0] == f"{job_id}: 2 of 3 done, 1 failed"
        assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "c.png"]
        assert jobs("watch", job_id, "-o", "out") == 1
        assert "->" not in capsys.readouterr().out  # all there

    def test_ctrl_c_leaves_the_job_alone(
        self,
        server: JobServer,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        server.allowed = 0
        job_id = submitted(capsys)

        def press(*_: object) -> None:
            monkeypatch.undo()
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(Board, "add", press)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            assert jobs("watch", job_id, "--server", server.url) == 130
        finally:
            signal.signal(signal.SIGINT, before)
        hint = f"`tessera jobs watch {job_id} --server {server.url}`"
        assert hint in capsys.readouterr().err
        server.allowed = 10_000
        assert jobs("watch", job_id, "--server", server.url) == 0


class TestGet:
    def test_a_job_and_its_items(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("in/b.png").write_bytes(PICTURES[1][:60])
        job_id = submitted(capsys)
        assert jobs("watch", job_id) == 1
        capsys.readouterr()
        assert jobs("get", job_id, "--items") == 0
        head, *items = capsys.readouterr().out.splitlines()
        assert head.startswith(f"{job_id}  ")
        assert head.endswith("  batch  failed: 2 of 3 done, 1 failed")
        assert items == [
            "0  a.png  succeeded  32x24",
            "1  b.png  failed: broken",
            "2  c.png  succeeded  32x24",
        ]
        assert jobs("get", job_id, "--items", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["id"], len(told["items"])) == (job_id, 3)

    def test_results_into_a_folder_or_a_zip(
        self, server: JobServer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        job_id = submitted(capsys)
        assert jobs("watch", job_id) == 0
        assert jobs("get", job_id, "-o", "out") == 0
        Path("out/a.png").write_bytes(b"mine")
        assert jobs("get", job_id, "-o", "out") == 1
        assert "out/a.png exists; --overwrite replaces it" in capsys.readouterr().err
        assert jobs("get", job_id, "-o", "out", "--overwrite") == 0
        assert Path("out/a.png").read_bytes() != b"mine"
        assert jobs("get", job_id, "-o", "all.zip") == 0
        with zipfile.ZipFile("all.zip") as archive:
            assert len(archive.namelist()) == 3
        assert jobs("get", job_id, "-o", "all.zip") == 2
        assert jobs("get", job_id, "-o", "all.zip", "--overwrite") == 0


def test_a_job_is_given_up_and_tried_again(
    server: JobServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.allowed = 0
    job_id = submitted(capsys)
    assert jobs("cancel", job_id) == 0
    assert "cancelled: 0 of 3 done, 3 cancelled" in capsys.readouterr().out
    assert jobs("watch", job_id) == 1
    assert jobs("retry", job_id, "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["counts"]["queued"] == 3
    assert jobs("list", "--status", "cancelled") == 0
    assert capsys.readouterr().out == ""
    assert jobs("list", "--status", "queued", "--limit", "1") == 0
    assert capsys.readouterr().out.startswith(job_id)


@pytest.mark.parametrize(
    "command", [["get", UNKNOWN], ["watch", UNKNOWN], ["cancel", UNKNOWN], ["retry", "../models"]]
)
def test_what_is_not_there(
    server: JobServer, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert jobs(*command) == 1
    assert capsys.readouterr().err.startswith("tessera: ")


@pytest.mark.parametrize("command", [["list"], ["get", UNKNOWN], ["submit", "a.png"]])
def test_no_server(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(PICTURES[0])
    assert jobs(*command, "--server", "http://127.0.0.1:1") == 3


def test_names_of_results_are_safe_and_no_two_are_alike() -> None:
    def named(*names: str) -> list[str]:
        items = [{"number": number, "name": name} for number, name in enumerate(names)]
        return list(stems_of(items).values())

    assert named("a.png", "b.x.jpg", "写真.png") == ["a", "b.x", "写真"]
    assert named("../../etc/passwd", "..\\x.png", "..", "\x1b[2J.png") == [
        "passwd",
        "x",
        "picture",
        "__2J",
    ]
    assert named("a.png", "A.jpg", "c.png") == ["0-a", "1-A", "2-c"]
    assert len(set(named(*["a.png"] * 11))) == 11


def test_it_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from serve_app.cli import main; code = main(['jobs', 'list', '--server', "
        "'http://127.0.0.1:1']); print(code, [m for m in ('torch', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3 []"
